#define GECO_MODELS avx2_models
#include "cpu/model_rows.inl"
