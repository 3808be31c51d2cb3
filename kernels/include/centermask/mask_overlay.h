/* Box-local masks blended into a frame, and the area of each. */
#ifndef CENTERMASK_MASK_OVERLAY_H
#define CENTERMASK_MASK_OVERLAY_H

#include "types.h"

#define CM_MASK_OVERLAY_MAX_INSTANCES 1024

typedef struct {
  uint8_t* frame;     /* [height, width, 3] with rows of pitch bytes, changed in place */
  const float* masks; /* [instances, side, side] probabilities */
  const float* boxes; /* [instances, 4] xyxy in frame pixels */
  const uint8_t* colors; /* [instances, 3] in the frame's channel order */
  const void* count;  /* [1] or null: only the first count instances are drawn */
  int32_t* area;      /* [instances] or null: pixels set of each, before anything covers them */
  int64_t pitch;
  int32_t height, width, instances, side, index_bytes;
  int32_t outline; /* 0: none; else a set pixel with an unset one so many pixels beside it */
  float opacity;   /* of the colour, 0 to 1; the outline is opaque */
} cm_mask_overlay_params;

CM_API size_t cm_mask_overlay_params_size(void);
/* Queues one kernel, and the clearing of area if wanted. The first instance ends on top. */
CM_API int cm_mask_overlay(const cm_mask_overlay_params* params, void* stream);

#endif
