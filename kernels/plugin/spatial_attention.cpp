// CMSpatialAttention over cm_spatial_attention.
#include "spatial_attention.h"

#include "checks.h"

namespace cm_plugin {

namespace {
enum Tensor { kX, kWeight, kY };
}

bool SpatialAttention::types(const Label& label, const DataType* in, DataType* out) {
  if (!is_real(in[kX]) && in[kX] != DataType::kINT8)
    return refuse(label, "input x is %s; float32, float16 or int8 is wanted", name_of(in[kX]));
  if (!is_real(in[kWeight]))
    return refuse(label, "input weight is %s; float32 or float16 is wanted",
                  name_of(in[kWeight]));
  out[0] = in[kX];
  return true;
}

bool SpatialAttention::shapes(const Label& label, const Values&, const Dims* in) {
  constexpr int64_t kWeightSizes[4] = {1, 2, 3, 3};
  if (!has_rank(label, "x", in[kX], 4) || !has_rank(label, "weight", in[kWeight], 4)) return false;
  for (int axis = 0; axis < 4; ++axis)
    if (!has_size(label, "weight", in[kWeight], axis, kWeightSizes[axis])) return false;
  const int64_t height = in[kX].d[2], width = in[kX].d[3];
  if (height < 0 || width < 0 || height * width <= CM_SPATIAL_ATTENTION_MAX_CELLS) return true;
  return refuse(label, "input x is %s; at most %d cells a RoI are possible",
                DimsText(in[kX]).text, CM_SPATIAL_ATTENTION_MAX_CELLS);
}

void SpatialAttention::output(const Values&, int, const nvinfer1::DimsExprs* in,
                              nvinfer1::DimsExprs& out, nvinfer1::IExprBuilder&) {
  out = in[kX];
}

bool SpatialAttention::offers(const Values&, int position, const PluginTensorDesc* tensors) {
  const PluginTensorDesc &tensor = tensors[position], &x = tensors[kX];
  if (position == kWeight)
    return is_real(tensor.type) && tensor.format == TensorFormat::kLINEAR;
  if (position == kY && (tensor.type != x.type || tensor.format != x.format)) return false;
  if (!is_real(tensor.type) && tensor.type != DataType::kINT8) return false;
  return pack_of(tensor.type, tensor.format, tensor.dims.d[1]) != 0;
}

bool SpatialAttention::ready(const Label& label, const Values& values,
                             const PluginTensorDesc* tensors) {
  if (tensors[kX].type != DataType::kINT8) return true;
  if (!scale_of(values.x_scale, tensors[kX]))
    return refuse(label, "int8 input x has no scale; give attribute x_scale");
  if (scale_of(values.y_scale, tensors[kY])) return true;
  return refuse(label, "the int8 output has no scale; give attribute y_scale");
}

int SpatialAttention::enqueue(const Values& values, const PluginTensorDesc* tensors,
                              const void* const* in, void* const* out, void*, void* stream) {
  const Dims& x = tensors[kX].dims;
  cm_spatial_attention_params p{};
  p.x = in[kX];
  p.weight = in[kWeight];
  p.y = out[0];
  p.rois = int32_t(x.d[0]);
  p.channels = int32_t(x.d[1]);
  p.height = int32_t(x.d[2]);
  p.width = int32_t(x.d[3]);
  p.type = int32_t(tensors[kX].type);
  p.pack = pack_of(tensors[kX].type, tensors[kX].format, p.channels);
  p.weight_type = int32_t(tensors[kWeight].type);
  p.x_scale = scale_of(values.x_scale, tensors[kX]);
  p.y_scale = scale_of(values.y_scale, tensors[kY]);
  return cm_spatial_attention(&p, stream);
}

}  // namespace cm_plugin
