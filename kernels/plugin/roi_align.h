// CMPyramidRoIAlign: features of every RoI from the level of its size.
//
//   p3, p4, p5 [N, C, H, W] float32, float16 or int8, one type; rois float32 [R, 4]; roi_image int64
//   or int32 [R]; image_size float32 [N, 2] -> [R, C, S, S] of the features' type
//
// Layouts of features and result: NCHW, HWC8 for float16, CHW4 and CHW32 for int8; all one.
#pragma once

#include "centermask/roi_align.h"
#include "fields.h"

namespace cm_plugin {

struct PyramidRoIAlign {
  static constexpr const char* kName = "CMPyramidRoIAlign";
  static constexpr int kInputs = 6, kOutputs = 1;

  struct Values {
    int32_t output_size;
    float feature_scales[3], output_scale;
  };
  static constexpr Attribute kAttributes[] = {
      {"output_size", Kind::integer, 1, offsetof(Values, output_size), true, 1,
       CM_ROI_ALIGN_MAX_SIDE, false},
      {"feature_scales", Kind::number, 3, offsetof(Values, feature_scales), false, 0, 1e30, true},
      {"output_scale", Kind::number, 1, offsetof(Values, output_scale), false, 0, 1e30, true},
  };

  static bool types(const Label& label, const DataType* in, DataType* out);
  static bool shapes(const Label& label, const Values& values, const Dims* in);
  static void output(const Values& values, int index, const nvinfer1::DimsExprs* in,
                     nvinfer1::DimsExprs& out, nvinfer1::IExprBuilder& builder);
  static bool offers(const Values& values, int position, const PluginTensorDesc* tensors);
  static bool ready(const Label& label, const Values& values, const PluginTensorDesc* tensors);
  static size_t workspace(const Values&, const PluginTensorDesc*) { return 0; }
  static int enqueue(const Values& values, const PluginTensorDesc* tensors, const void* const* in,
                     void* const* out, void* workspace, void* stream);
};

}  // namespace cm_plugin
