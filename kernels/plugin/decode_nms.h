// CMDecodeNMS: five levels of dense outputs to the best boxes of each picture.
//
//   logits_3..7 [N, C, H, W], reg_3..7 [N, 4, H, W], centerness_3..7 [N, 1, H, W]: float32, or all
//   float16 -> boxes float32 [N, K, 4], scores float32 [N, K], classes int64 [N, K], count int64 [N]
#pragma once

#include "centermask/decode_nms.h"
#include "fields.h"

namespace cm_plugin {

struct DecodeNMS {
  static constexpr const char* kName = "CMDecodeNMS";
  static constexpr int kLevels = 5, kInputs = 3 * kLevels, kOutputs = 4;

  struct Values {
    float score_threshold, nms_threshold;
    int32_t pre_nms_topk, max_detections;
  };
  static constexpr Attribute kAttributes[] = {
      {"score_threshold", Kind::number, 1, offsetof(Values, score_threshold), true, 0, 0.999999,
       false},
      {"nms_threshold", Kind::number, 1, offsetof(Values, nms_threshold), true, 0, 1, false},
      {"pre_nms_topk", Kind::integer, 1, offsetof(Values, pre_nms_topk), true, 1,
       CM_DECODE_MAX_TOPK, false},
      {"max_detections", Kind::integer, 1, offsetof(Values, max_detections), true, 1,
       CM_DECODE_MAX_DETECTIONS, false},
  };

  static bool types(const Label& label, const DataType* in, DataType* out);
  static bool shapes(const Label& label, const Values& values, const Dims* in);
  static void output(const Values& values, int index, const nvinfer1::DimsExprs* in,
                     nvinfer1::DimsExprs& out, nvinfer1::IExprBuilder& builder);
  static bool offers(const Values& values, int position, const PluginTensorDesc* tensors);
  static bool ready(const Label& label, const Values& values, const PluginTensorDesc* tensors);
  static size_t workspace(const Values& values, const PluginTensorDesc* tensors);
  static int enqueue(const Values& values, const PluginTensorDesc* tensors, const void* const* in,
                     void* const* out, void* workspace, void* stream);
};

}  // namespace cm_plugin
