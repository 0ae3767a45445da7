#define GECO_MODELS avx512_models
#include "cpu/model_rows.inl"
