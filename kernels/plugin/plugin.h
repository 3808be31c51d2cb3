// What the three plugins share: the four interfaces of a V3 plugin over one description of an op.
//
// An op is a struct with
//   kName, kInputs, kOutputs, kAttributes        constants
//   Values                                        its attributes, plain data
//   types(label, in, out)                         output types, or false with a message
//   shapes(label, values, in)                     whether sizes fit; -1: not known yet
//   output(values, i, in, out, builder)           the symbolic sizes of output i
//   offers(values, position, tensors)             whether this type and layout is had
//   ready(label, values, tensors)                 what only whole descriptions tell: scales
//   workspace(values, tensors)                    bytes
//   enqueue(values, tensors, in, out, workspace, stream)
// where `tensors` are the descriptions of the inputs, then of the outputs. An op holds no state,
// so a plugin is its label and its attributes, and a clone is a copy.
#pragma once

#include <algorithm>
#include <new>

#include "centermask/types.h"
#include "embedded.h"
#include "fields.h"

namespace cm_plugin {

constexpr int kFailed = -1;

template <class Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
  using DynamicDesc = nvinfer1::DynamicPluginTensorDesc;
  static constexpr int kTensors = Op::kInputs + Op::kOutputs;
  static constexpr int kAttributeCount = int(sizeof(Op::kAttributes) / sizeof(Attribute));
  static_assert(kAttributeCount <= kMaxAttributes);

 public:
  Plugin(const Label& label, const typename Op::Values& values) : label_(label), values_(values) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override {
    return new (std::nothrow) Plugin(label_, values_);
  }

  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return Op::kOutputs; }
  int32_t getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in,
                             int32_t inputs) const noexcept override {
    if (!counted(inputs, outputs)) return kFailed;
    return Op::types(label_, in, out) ? 0 : kFailed;
  }
  int32_t getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs,
                          const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* out,
                          int32_t outputs, nvinfer1::IExprBuilder& builder) noexcept override {
    if (!counted(inputs, outputs)) return kFailed;
    Dims known[Op::kInputs];
    for (int i = 0; i < Op::kInputs; ++i) known[i] = known_sizes(in[i]);
    if (!Op::shapes(label_, values_, known)) return kFailed;
    for (int i = 0; i < Op::kOutputs; ++i) Op::output(values_, i, in, out[i], builder);
    return 0;
  }
  bool supportsFormatCombination(int32_t position, const DynamicDesc* in_out, int32_t inputs,
                                 int32_t outputs) noexcept override {
    if (!counted(inputs, outputs) || position < 0 || position >= kTensors) return false;
    PluginTensorDesc tensors[kTensors];
    for (int i = 0; i <= position; ++i) tensors[i] = in_out[i].desc;
    return Op::offers(values_, position, tensors);
  }
  int32_t configurePlugin(const DynamicDesc* in, int32_t inputs, const DynamicDesc* out,
                          int32_t outputs) noexcept override {
    if (!counted(inputs, outputs)) return kFailed;
    PluginTensorDesc tensors[kTensors];
    largest(in, out, tensors);
    // Upper bounds of two open sizes may differ where the sizes never will: compared are those
    // that are known.
    Dims dims[Op::kInputs];
    for (int i = 0; i < Op::kInputs; ++i) dims[i] = in[i].desc.dims;
    return Op::shapes(label_, values_, dims) && Op::ready(label_, values_, tensors) ? 0 : kFailed;
  }
  size_t getWorkspaceSize(const DynamicDesc* in, int32_t inputs, const DynamicDesc* out,
                          int32_t outputs) const noexcept override {
    if (!counted(inputs, outputs)) return 0;
    PluginTensorDesc tensors[kTensors];
    largest(in, out, tensors);
    return Op::workspace(values_, tensors);
  }

  int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                        int32_t outputs) noexcept override {
    if (!counted(inputs, outputs)) return kFailed;
    PluginTensorDesc tensors[kTensors];
    gather(in, out, tensors);
    Dims dims[Op::kInputs];
    for (int i = 0; i < Op::kInputs; ++i) dims[i] = in[i].dims;
    return Op::shapes(label_, values_, dims) && Op::ready(label_, values_, tensors) ? 0 : kFailed;
  }
  int32_t enqueue(const PluginTensorDesc* in_desc, const PluginTensorDesc* out_desc,
                  const void* const* in, void* const* out, void* workspace,
                  cudaStream_t stream) noexcept override {
    PluginTensorDesc tensors[kTensors];
    gather(in_desc, out_desc, tensors);
    const int code = Op::enqueue(values_, tensors, in, out, workspace, stream);
    if (code != CM_OK) refuse(label_, "the kernel answers %d: %s", code, cm_error_text(code));
    return code;
  }
  // A plugin holds nothing that belongs to a context; each context has its own copy.
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    const int code = load_embedded_kernels();
    if (code == CM_OK) return clone();
    refuse(label_, "its kernels cannot be loaded, code %d: %s; build the library on this machine",
           code, cm_error_text(code));
    return nullptr;
  }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    collection_.nbFields = write_fields(Op::kAttributes, kAttributeCount, &values_, fields_);
    collection_.fields = fields_;
    return &collection_;
  }

 private:
  bool counted(int32_t inputs, int32_t outputs) const {
    if (inputs == Op::kInputs && outputs == Op::kOutputs) return true;
    return refuse(label_, "%d inputs and %d outputs; %d and %d are wanted", int(inputs),
                  int(outputs), Op::kInputs, Op::kOutputs);
  }
  static Dims known_sizes(const nvinfer1::DimsExprs& from) {
    Dims dims{};
    dims.nbDims = from.nbDims;
    for (int i = 0; i < from.nbDims && i < Dims::MAX_DIMS; ++i)
      dims.d[i] = from.d[i]->isConstant() ? from.d[i]->getConstantValue() : -1;
    return dims;
  }
  static void gather(const PluginTensorDesc* in, const PluginTensorDesc* out,
                     PluginTensorDesc* tensors) {
    std::copy(in, in + Op::kInputs, tensors);
    std::copy(out, out + Op::kOutputs, tensors + Op::kInputs);
  }
  static void largest(const DynamicDesc* in, const DynamicDesc* out, PluginTensorDesc* tensors) {
    for (int i = 0; i < kTensors; ++i) {
      const DynamicDesc& from = i < Op::kInputs ? in[i] : out[i - Op::kInputs];
      tensors[i] = from.desc;
      if (from.max.nbDims == from.desc.dims.nbDims) tensors[i].dims = from.max;
    }
  }

  Label label_;
  typename Op::Values values_;
  nvinfer1::PluginField fields_[kMaxAttributes];
  nvinfer1::PluginFieldCollection collection_{0, fields_};
};

// Makes plugins from attributes: of a node while building, of an engine when it is loaded.
template <class Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
  static constexpr int kAttributeCount = int(sizeof(Op::kAttributes) / sizeof(Attribute));

 public:
  Creator() { announce_fields(Op::kAttributes, kAttributeCount, fields_); }
  nvinfer1::IPluginV3* createPlugin(const char* name,
                                    const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    const Label label = make_label(Op::kName, name);
    typename Op::Values values{};
    if (!read_fields(label, fields, Op::kAttributes, kAttributeCount, &values)) return nullptr;
    return new (std::nothrow) Plugin<Op>(label, values);
  }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  nvinfer1::PluginField fields_[kMaxAttributes];
  nvinfer1::PluginFieldCollection collection_{kAttributeCount, fields_};
};

}  // namespace cm_plugin
