/* Spatial attention: x * sigmoid(conv3x3([mean over C, max over C])) (CenterMask, eq. 3-4). */
#ifndef CENTERMASK_SPATIAL_ATTENTION_H
#define CENTERMASK_SPATIAL_ATTENTION_H

#include "types.h"

/* Cells (height * width) of one RoI at most; more is CM_OVER_LIMIT. */
#define CM_SPATIAL_ATTENTION_MAX_CELLS 1024

typedef struct {
  const void* x;      /* [rois, channels, height, width] */
  const void* weight; /* [1, 2, 3, 3], mean first, then max */
  void* y;            /* as x; may be x itself */
  int32_t rois, channels, height, width;
  int32_t type, pack, weight_type; /* weight_type: CM_FLOAT32 or CM_FLOAT16 */
  float x_scale, y_scale;          /* int8 only: value = scale * code */
} cm_spatial_attention_params;

CM_API size_t cm_spatial_attention_params_size(void);
/* Queues one kernel; no allocation, no synchronisation. rois 0 queues nothing. */
CM_API int cm_spatial_attention(const cm_spatial_attention_params* params, void* stream);

#endif
