/* FCOS decoding, per-level top-k, class-aware NMS and the best K, without host synchronisation. */
#ifndef CENTERMASK_DECODE_NMS_H
#define CENTERMASK_DECODE_NMS_H

#include "types.h"

#define CM_DECODE_MAX_LEVELS 5
#define CM_DECODE_MAX_TOPK 2048        /* pre_nms_topk at most */
#define CM_DECODE_MAX_DETECTIONS 1000  /* max_detections at most */

typedef struct {
  const void* logits[CM_DECODE_MAX_LEVELS];     /* [images, classes, height[l], width[l]] */
  const void* reg[CM_DECODE_MAX_LEVELS];        /* [images, 4, height[l], width[l]] l t r b, strides */
  const void* centerness[CM_DECODE_MAX_LEVELS]; /* [images, 1, height[l], width[l]] logits */
  float* boxes;    /* [images, max_detections, 4] xyxy in input pixels, not clipped */
  float* scores;   /* [images, max_detections] root of class probability times centre-ness */
  void* classes_out; /* [images, max_detections] */
  void* count;     /* [images] */
  int32_t* indices; /* [images, max_detections] or null: level offset + class * cells + cell */
  void* workspace; /* aligned to 16 bytes */
  uint64_t workspace_bytes;
  int32_t height[CM_DECODE_MAX_LEVELS], width[CM_DECODE_MAX_LEVELS];
  int32_t stride[CM_DECODE_MAX_LEVELS]; /* input pixels a cell */
  int32_t levels, images, classes;
  int32_t type;        /* of logits, reg and centerness: CM_FLOAT32 or CM_FLOAT16 */
  int32_t index_bytes; /* of classes_out and count: 4 or 8 */
  int32_t pre_nms_topk, max_detections;
  float score_threshold; /* a class probability must be above it; 0 to below 1 */
  float nms_threshold;   /* a higher IoU with a better box of the class suppresses; 0 to 1 */
} cm_decode_nms_params;

CM_API size_t cm_decode_nms_params_size(void);
/* Bytes of workspace for these sizes; 0 where they are refused. */
CM_API size_t cm_decode_nms_workspace(const cm_decode_nms_params* params);
/* Queues three kernels and a clearing of counters. What lies beyond count is 0, and -1 in indices.
 *
 * Order: higher product of class probability and centre-ness first; of equal products the lower
 * level, then the lower class, then the earlier cell. NaN logits, centre-ness and products are no
 * candidates, nor are products of 0. */
CM_API int cm_decode_nms(const cm_decode_nms_params* params, void* stream);

#endif
