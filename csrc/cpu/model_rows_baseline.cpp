#define GECO_MODELS baseline_models
#include "cpu/model_rows.inl"
