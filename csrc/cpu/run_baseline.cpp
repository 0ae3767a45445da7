#define GECO_TABLE baseline_table
#define GECO_TABLE_NAME "baseline"
#include "cpu/run.inl"
