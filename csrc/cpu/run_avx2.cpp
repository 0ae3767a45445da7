#define GECO_TABLE avx2_table
#define GECO_TABLE_NAME "avx2"
#include "cpu/run.inl"
