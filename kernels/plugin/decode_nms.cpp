// CMDecodeNMS over cm_decode_nms.
#include "decode_nms.h"

#include "checks.h"

namespace cm_plugin {

namespace {

constexpr const char* kInputNames[DecodeNMS::kInputs] = {
    "logits_3", "logits_4", "logits_5",     "logits_6",     "logits_7",
    "reg_3",    "reg_4",    "reg_5",        "reg_6",        "reg_7",
    "centerness_3", "centerness_4", "centerness_5", "centerness_6", "centerness_7"};
constexpr int kFirstStride = 8;  // of P3; each next level doubles it
enum Output { kBoxes, kScores, kClasses, kCount };

cm_decode_nms_params params_of(const DecodeNMS::Values& values, const PluginTensorDesc* tensors) {
  cm_decode_nms_params p{};
  p.levels = DecodeNMS::kLevels;
  p.images = int32_t(tensors[0].dims.d[0]);
  p.classes = int32_t(tensors[0].dims.d[1]);
  for (int l = 0; l < DecodeNMS::kLevels; ++l) {
    p.height[l] = int32_t(tensors[l].dims.d[2]);
    p.width[l] = int32_t(tensors[l].dims.d[3]);
    p.stride[l] = kFirstStride << l;
  }
  p.type = tensors[0].type == DataType::kHALF ? CM_FLOAT16 : CM_FLOAT32;
  p.index_bytes = 8;
  p.pre_nms_topk = values.pre_nms_topk;
  p.max_detections = values.max_detections;
  p.score_threshold = values.score_threshold;
  p.nms_threshold = values.nms_threshold;
  return p;
}

}  // namespace

bool DecodeNMS::types(const Label& label, const DataType* in, DataType* out) {
  if (!is_real(in[0]))
    return refuse(label, "input logits_3 is %s; float32 or float16 is wanted", name_of(in[0]));
  for (int i = 1; i < kInputs; ++i)
    if (in[i] != in[0])
      return refuse(label, "input %s is %s; %s is wanted, as logits_3", kInputNames[i],
                    name_of(in[i]), name_of(in[0]));
  out[kBoxes] = out[kScores] = DataType::kFLOAT;
  out[kClasses] = out[kCount] = DataType::kINT64;
  return true;
}

bool DecodeNMS::shapes(const Label& label, const Values&, const Dims* in) {
  for (int i = 0; i < kInputs; ++i) {
    const char* name = kInputNames[i];
    const int kind = i / kLevels, level = i % kLevels;
    if (!has_rank(label, name, in[i], 4)) return false;
    const int64_t channels = kind == 0 ? in[0].d[1] : kind == 1 ? 4 : 1;
    if (!has_size(label, name, in[i], 0, in[0].d[0])) return false;
    if (!has_size(label, name, in[i], 1, channels)) return false;
    for (int axis = 2; axis < 4; ++axis)
      if (!has_size(label, name, in[i], axis, in[level].d[axis])) return false;
  }
  return true;
}

void DecodeNMS::output(const Values& values, int index, const nvinfer1::DimsExprs* in,
                       nvinfer1::DimsExprs& out, nvinfer1::IExprBuilder& builder) {
  out.nbDims = index == kBoxes ? 3 : index == kCount ? 1 : 2;
  out.d[0] = in[0].d[0];
  if (index != kCount) out.d[1] = builder.constant(values.max_detections);
  if (index == kBoxes) out.d[2] = builder.constant(4);
}

bool DecodeNMS::offers(const Values&, int position, const PluginTensorDesc* tensors) {
  const PluginTensorDesc& tensor = tensors[position];
  if (tensor.format != TensorFormat::kLINEAR) return false;
  if (position < kInputs) return is_real(tensor.type) && tensor.type == tensors[0].type;
  const int output = position - kInputs;
  return tensor.type == (output < kClasses ? DataType::kFLOAT : DataType::kINT64);
}

bool DecodeNMS::ready(const Label& label, const Values& values, const PluginTensorDesc* tensors) {
  for (int i = 0; i < kInputs; ++i)
    for (int axis = 0; axis < 4; ++axis)
      if (tensors[i].dims.d[axis] < 0) return true;  // said again when the sizes are known
  const cm_decode_nms_params p = params_of(values, tensors);
  if (cm_decode_nms_workspace(&p)) return true;
  return refuse(label, "logits_3 of %s and its levels are more than the kernel takes",
                DimsText(tensors[0].dims).text);
}

size_t DecodeNMS::workspace(const Values& values, const PluginTensorDesc* tensors) {
  const cm_decode_nms_params p = params_of(values, tensors);
  return cm_decode_nms_workspace(&p);
}

int DecodeNMS::enqueue(const Values& values, const PluginTensorDesc* tensors,
                       const void* const* in, void* const* out, void* workspace, void* stream) {
  cm_decode_nms_params p = params_of(values, tensors);
  for (int l = 0; l < kLevels; ++l) {
    p.logits[l] = in[l];
    p.reg[l] = in[kLevels + l];
    p.centerness[l] = in[2 * kLevels + l];
  }
  p.boxes = static_cast<float*>(out[kBoxes]);
  p.scores = static_cast<float*>(out[kScores]);
  p.classes_out = out[kClasses];
  p.count = out[kCount];
  p.workspace = workspace;
  p.workspace_bytes = cm_decode_nms_workspace(&p);
  return cm_decode_nms(&p, stream);
}

}  // namespace cm_plugin
