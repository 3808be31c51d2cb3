/* Scale-adaptive RoIAlign over P3, P4 and P5 in one launch (CenterMask section 3.1, equation 2). */
#ifndef CENTERMASK_ROI_ALIGN_H
#define CENTERMASK_ROI_ALIGN_H

#include "types.h"

/* Output side at most; more is CM_OVER_LIMIT. */
#define CM_ROI_ALIGN_MAX_SIDE 32

typedef struct {
  const void* features[3]; /* P3, P4, P5: [images, channels, height[l], width[l]], one type, pack */
  const float* rois;       /* [rois_count, 4] xyxy in input pixels, unclipped */
  const void* roi_image;   /* [rois_count] picture of each RoI, or null: r / rois_per_image */
  const float* image_size; /* [images, 2] resized, unpadded height and width */
  const void* count;       /* [images] or null: RoI k of a picture with k >= count gives zeros */
  void* output;            /* [rois_count, channels, side, side], same type and pack */
  int32_t height[3], width[3];
  int32_t images, channels, rois_count, rois_per_image, side;
  int32_t type, pack, index_bytes; /* index_bytes: 4 or 8, of roi_image and count */
  float feature_scale[3], output_scale; /* int8 only: value = scale * code */
} cm_roi_align_params;

CM_API size_t cm_roi_align_params_size(void);
/* Queues one kernel; no allocation, no synchronisation. rois_count 0 queues nothing. */
CM_API int cm_roi_align(const cm_roi_align_params* params, void* stream);

#endif
