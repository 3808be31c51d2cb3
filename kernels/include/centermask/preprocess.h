/* Camera frame to network input in one launch: resize, normalise, pad, NCHW. */
#ifndef CENTERMASK_PREPROCESS_H
#define CENTERMASK_PREPROCESS_H

#include "types.h"

enum { CM_BGR = 0, CM_RGB = 1, CM_NV12 = 2 };          /* source_format */
enum { CM_BT601 = 0, CM_BT709 = 1 };                   /* matrix, NV12 only */

typedef struct {
  const uint8_t* source; /* [images] of source_height rows of source_pitch bytes; NV12: luma */
  const uint8_t* chroma; /* NV12: [images] of source_height / 2 rows of U, V pairs; else null */
  const int32_t* tables; /* what cm_preprocess_fill_tables wrote, where the kernel can read it */
  void* output;          /* [images, 3, padded_height, padded_width] */
  int64_t source_stride, chroma_stride; /* bytes from one picture to the next */
  int64_t source_pitch, chroma_pitch;   /* bytes from one row to the next */
  int32_t images, source_height, source_width;
  int32_t resized_height, resized_width, padded_height, padded_width;
  int32_t source_format, matrix, full_range; /* full_range: NV12 luma of 0..255, not 16..235 */
  int32_t rgb_output; /* 0: channels B, G, R as the network was trained; 1: R, G, B */
  int32_t type;       /* of output: CM_FLOAT32 or CM_FLOAT16 */
  float mean[3], std[3]; /* of the output's channels, in their order */
} cm_preprocess_params;

CM_API size_t cm_preprocess_params_size(void);
/* Bytes of the weight tables for these sizes; 0 where they are refused. */
CM_API size_t cm_preprocess_table_bytes(const cm_preprocess_params* params);
/* Writes the tables into CPU memory, to be uploaded once for each pair of sizes. */
CM_API int cm_preprocess_fill_tables(const cm_preprocess_params* params, void* host_memory);
/* Queues one kernel; no allocation, no synchronisation. */
CM_API int cm_preprocess(const cm_preprocess_params* params, void* stream);

#endif
