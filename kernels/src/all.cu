// Every kernel in one translation unit: one compiler call builds the library.
#include "runtime.cu"
#include "roi_align.cu"
#include "spatial_attention.cu"
#include "decode_nms.cu"
#include "preprocess.cu"
#include "mask_overlay.cu"
