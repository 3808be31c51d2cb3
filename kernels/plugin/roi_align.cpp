// CMPyramidRoIAlign over cm_roi_align.
#include "roi_align.h"

#include "checks.h"

namespace cm_plugin {

namespace {

constexpr const char* kInputNames[PyramidRoIAlign::kInputs] = {"p3",        "p4",
                                                               "p5",        "rois",
                                                               "roi_image", "image_size"};
enum Tensor { kP3, kP4, kP5, kRois, kRoiImage, kImageSize, kFeatures };
constexpr int kOthers[] = {kP4, kP5}, kReals[] = {kRois, kImageSize};

bool is_index(DataType type) { return type == DataType::kINT64 || type == DataType::kINT32; }

bool typed(const Label& label, int input, DataType type, bool fits, const char* wanted) {
  if (fits) return true;
  return refuse(label, "input %s is %s; %s is wanted", kInputNames[input], name_of(type), wanted);
}

}  // namespace

bool PyramidRoIAlign::types(const Label& label, const DataType* in, DataType* out) {
  const bool real = is_real(in[kP3]) || in[kP3] == DataType::kINT8;
  if (!typed(label, kP3, in[kP3], real, "float32, float16 or int8")) return false;
  for (const int i : kOthers)
    if (!typed(label, i, in[i], in[i] == in[kP3], name_of(in[kP3]))) return false;
  for (const int i : kReals)
    if (!typed(label, i, in[i], in[i] == DataType::kFLOAT, "float32")) return false;
  if (!typed(label, kRoiImage, in[kRoiImage], is_index(in[kRoiImage]), "int64 or int32"))
    return false;
  out[0] = in[kP3];
  return true;
}

bool PyramidRoIAlign::shapes(const Label& label, const Values&, const Dims* in) {
  constexpr int kRank[kInputs] = {4, 4, 4, 2, 1, 2};
  for (int i = 0; i < kInputs; ++i)
    if (!has_rank(label, kInputNames[i], in[i], kRank[i])) return false;
  for (const int i : kOthers)
    for (int axis = 0; axis < 2; ++axis)
      if (!has_size(label, kInputNames[i], in[i], axis, in[kP3].d[axis])) return false;
  return has_size(label, "rois", in[kRois], 1, 4) &&
         has_size(label, "roi_image", in[kRoiImage], 0, in[kRois].d[0]) &&
         has_size(label, "image_size", in[kImageSize], 0, in[kP3].d[0]) &&
         has_size(label, "image_size", in[kImageSize], 1, 2);
}

void PyramidRoIAlign::output(const Values& values, int, const nvinfer1::DimsExprs* in,
                             nvinfer1::DimsExprs& out, nvinfer1::IExprBuilder& builder) {
  out.nbDims = 4;
  out.d[0] = in[kRois].d[0];
  out.d[1] = in[kP3].d[1];
  out.d[2] = out.d[3] = builder.constant(values.output_size);
}

bool PyramidRoIAlign::offers(const Values&, int position, const PluginTensorDesc* tensors) {
  const PluginTensorDesc &tensor = tensors[position], &first = tensors[kP3];
  if (position == kRois || position == kImageSize)
    return tensor.type == DataType::kFLOAT && tensor.format == TensorFormat::kLINEAR;
  if (position == kRoiImage)
    return is_index(tensor.type) && tensor.format == TensorFormat::kLINEAR;
  if (position > kP3 && (tensor.type != first.type || tensor.format != first.format)) return false;
  if (!is_real(tensor.type) && tensor.type != DataType::kINT8) return false;
  return pack_of(tensor.type, tensor.format, tensor.dims.d[1]) != 0;
}

bool PyramidRoIAlign::ready(const Label& label, const Values& values,
                            const PluginTensorDesc* tensors) {
  if (tensors[kP3].type != DataType::kINT8) return true;
  for (int l = 0; l < 3; ++l)
    if (!scale_of(values.feature_scales[l], tensors[l]))
      return refuse(label, "int8 input %s has no scale; give attribute feature_scales",
                    kInputNames[l]);
  if (scale_of(values.output_scale, tensors[kFeatures])) return true;
  return refuse(label, "the int8 output has no scale; give attribute output_scale");
}

int PyramidRoIAlign::enqueue(const Values& values, const PluginTensorDesc* tensors,
                             const void* const* in, void* const* out, void*, void* stream) {
  cm_roi_align_params p{};
  for (int l = 0; l < 3; ++l) {
    p.features[l] = in[l];
    p.height[l] = int32_t(tensors[l].dims.d[2]);
    p.width[l] = int32_t(tensors[l].dims.d[3]);
    p.feature_scale[l] = scale_of(values.feature_scales[l], tensors[l]);
  }
  p.output_scale = scale_of(values.output_scale, tensors[kFeatures]);
  p.rois = static_cast<const float*>(in[kRois]);
  p.roi_image = in[kRoiImage];
  p.image_size = static_cast<const float*>(in[kImageSize]);
  p.output = out[0];
  p.images = int32_t(tensors[kP3].dims.d[0]);
  p.channels = int32_t(tensors[kP3].dims.d[1]);
  p.rois_count = int32_t(tensors[kRois].dims.d[0]);
  p.side = values.output_size;
  p.type = int32_t(tensors[kP3].type);
  p.pack = pack_of(tensors[kP3].type, tensors[kP3].format, p.channels);
  p.index_bytes = tensors[kRoiImage].type == DataType::kINT64 ? 8 : 4;
  return cm_roi_align(&p, stream);
}

}  // namespace cm_plugin
