#define GECO_TABLE avx512_table
#define GECO_TABLE_NAME "avx512"
#include "cpu/run.inl"
