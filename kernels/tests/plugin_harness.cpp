// Drives a plugin as TensorRT does, without TensorRT: createPlugin, clone, types, shapes, formats,
// configure, workspace, serialise, restore, attach, shapes, enqueue.
//
// One C function, for Python's ctypes. The tensors are wherever the library's kernels read: CPU
// memory for the host build, device memory for the CUDA build.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "trt.h"

namespace {

using namespace nvinfer1;

// What the host must provide: symbolic sizes, and a logger in either of its two shapes.

class Size final : public IDimensionExpr {
 public:
  Size(int64_t value, bool constant) : inner_(value, constant) { mImpl = &inner_; }
  ~Size() noexcept override = default;
  int64_t value() const { return inner_.value; }

 private:
  struct Inner final : apiv::VDimensionExpr {
    Inner(int64_t v, bool c) : value(v), constant(c) {}
    bool isConstant() const override { return constant; }
    int64_t getConstantValue() const override { return constant ? value : INT64_MIN; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
    bool constant;
  } inner_;
};

class Builder final : public IExprBuilder {
 public:
  Builder() { mImpl = &inner_; }
  ~Builder() noexcept override {
    for (Size* size : inner_.made) delete size;
  }
  Size* make(int64_t value, bool constant) {
    inner_.made.push_back(new Size(value, constant));
    return inner_.made.back();
  }

 private:
  struct Inner final : apiv::VExprBuilder {
    const IDimensionExpr* constant(int64_t value) override {
      made.push_back(new Size(value, true));
      return made.back();
    }
    const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&,
                                    const IDimensionExpr&) override {
      return nullptr;
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
      return nullptr;
    }
    std::vector<Size*> made;
  } inner_;
};

std::string g_heard;

struct PlainLogger {
  virtual void log(int32_t, const char* text) noexcept { g_heard += std::string(text) + "\n"; }
  virtual ~PlainLogger() = default;
};
struct PlainFinder {
  virtual void* findLogger() { return &logger; }
  virtual ~PlainFinder() = default;
  PlainLogger logger;
};
struct VersionedLogger final : IVersionedInterface {
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILogger", 1, 0}; }
  virtual void log(int32_t, const char* text) noexcept { g_heard += std::string(text) + "\n"; }
};
struct VersionedFinder final : IVersionedInterface {
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILoggerFinder", 1, 0}; }
  virtual void* findLogger() { return &logger; }
  VersionedLogger logger;
};

}  // namespace

extern "C" {

struct harness_tensor {
  void* data;
  int64_t sizes[8];
  int32_t rank, type, format;
  float scale;
};

struct harness_job {
  const char* library;  // path
  const char* plugin;   // name
  const char* node;     // its name in messages
  const PluginField* fields;
  const harness_tensor* inputs;
  const harness_tensor* outputs;  // what is expected; data is filled
  int32_t field_count, input_count, output_count;
  int32_t versioned_logger, constant_sizes;
  void* stream;
};
}

namespace {

// The steps, each a number that the caller gets where it fails.
enum Step {
  kDone,
  kLoad,
  kFind,
  kCreate,
  kClone,
  kInterface,
  kTypes,
  kShapes,
  kFormats,
  kConfigure,
  kWorkspace,
  kRestore,
  kAttach,
  kShapeChange,
  kEnqueue,
};

struct Library {
  void* handle = nullptr;
  IPluginCreatorV3One* creator = nullptr;
  int (*alloc)(void**, size_t) = nullptr;
  int (*release)(void*) = nullptr;
  int (*synchronize)(void*) = nullptr;
};

template <class Function>
bool look_up(void* handle, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(handle, name));
  return *function != nullptr;
}

int open_library(const harness_job& job, Library* library) {
  static PlainFinder plain;
  static VersionedFinder versioned;
  void* handle = library->handle = dlopen(job.library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    g_heard = dlerror();
    return kLoad;
  }
  void (*set_finder)(void*) = nullptr;
  IPluginCreatorInterface* const* (*creators)(int32_t&) = nullptr;
  if (!look_up(handle, "setLoggerFinder", &set_finder) ||
      !look_up(handle, "getCreators", &creators) ||
      !look_up(handle, "cm_memory_alloc", &library->alloc) ||
      !look_up(handle, "cm_memory_free", &library->release) ||
      !look_up(handle, "cm_synchronize", &library->synchronize))
    return kLoad;
  set_finder(job.versioned_logger ? static_cast<void*>(&versioned) : &plain);
  int32_t count = 0;
  IPluginCreatorInterface* const* list = creators(count);
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(list[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE")) continue;
    auto* creator = static_cast<IPluginCreatorV3One*>(list[i]);
    const bool ours = !std::strcmp(creator->getPluginNamespace(), cm_plugin::kNamespace) &&
                      !std::strcmp(creator->getPluginVersion(), cm_plugin::kVersion);
    if (ours && !std::strcmp(creator->getPluginName(), job.plugin)) library->creator = creator;
  }
  return library->creator ? kDone : kFind;
}

PluginTensorDesc describe(const harness_tensor& tensor) {
  PluginTensorDesc desc{};
  desc.dims.nbDims = tensor.rank;
  for (int i = 0; i < tensor.rank; ++i) desc.dims.d[i] = tensor.sizes[i];
  desc.type = static_cast<DataType>(tensor.type);
  desc.format = static_cast<TensorFormat>(tensor.format);
  desc.scale = tensor.scale;
  return desc;
}

struct Descriptions {
  std::vector<PluginTensorDesc> in, out;
  std::vector<DynamicPluginTensorDesc> dynamic;  // inputs, then outputs
  int32_t inputs, outputs;

  explicit Descriptions(const harness_job& job)
      : inputs(job.input_count), outputs(job.output_count) {
    for (int i = 0; i < inputs; ++i) in.push_back(describe(job.inputs[i]));
    for (int i = 0; i < outputs; ++i) out.push_back(describe(job.outputs[i]));
    for (const auto* part : {&in, &out})
      for (const PluginTensorDesc& desc : *part)
        dynamic.push_back({desc, desc.dims, desc.dims, desc.dims});
    if (!job.constant_sizes)  // the first size is the batch, which is left open
      for (DynamicPluginTensorDesc& each : dynamic) each.desc.dims.d[0] = -1;
  }
};

bool types_agree(IPluginV3OneBuild* build, const Descriptions& d) {
  std::vector<DataType> in, out(d.out.size());
  for (const PluginTensorDesc& desc : d.in) in.push_back(desc.type);
  if (build->getOutputDataTypes(out.data(), d.outputs, in.data(), d.inputs)) return false;
  for (size_t i = 0; i < out.size(); ++i)
    if (out[i] != d.out[i].type) return false;
  return true;
}

bool shapes_agree(IPluginV3OneBuild* build, const Descriptions& d, bool constant) {
  Builder builder;
  std::vector<DimsExprs> in(d.in.size()), out(d.out.size());
  for (size_t i = 0; i < in.size(); ++i) {
    in[i].nbDims = d.in[i].dims.nbDims;
    for (int k = 0; k < in[i].nbDims; ++k)
      in[i].d[k] = builder.make(d.in[i].dims.d[k], constant || k > 0);
  }
  if (build->getOutputShapes(in.data(), d.inputs, nullptr, 0, out.data(), d.outputs, builder))
    return false;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].nbDims != d.out[i].dims.nbDims) return false;
    for (int k = 0; k < out[i].nbDims; ++k)
      if (static_cast<const Size*>(out[i].d[k])->value() != d.out[i].dims.d[k]) return false;
  }
  return true;
}

// What the builder does with a plugin, up to its serialised fields.
int prepare(const harness_job& job, IPluginV3* plugin, const Descriptions& d, size_t* workspace) {
  auto* build = static_cast<IPluginV3OneBuild*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
  auto* core = static_cast<IPluginV3OneCore*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
  if (!build || !core || std::strcmp(core->getPluginName(), job.plugin)) return kInterface;
  if (build->getNbOutputs() != d.outputs) return kInterface;
  if (!types_agree(build, d)) return kTypes;
  if (!shapes_agree(build, d, job.constant_sizes)) return kShapes;
  for (int i = 0; i < d.inputs + d.outputs; ++i)
    if (!build->supportsFormatCombination(i, d.dynamic.data(), d.inputs, d.outputs))
      return kFormats;
  const DynamicPluginTensorDesc *in = d.dynamic.data(), *out = in + d.inputs;
  if (build->configurePlugin(in, d.inputs, out, d.outputs)) return kConfigure;
  *workspace = build->getWorkspaceSize(in, d.inputs, out, d.outputs);
  return build->getNbTactics() == 0 ? kDone : kConfigure;
}

int execute(const harness_job& job, IPluginV3* plugin, const Descriptions& d, void* workspace) {
  auto* run = static_cast<IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  if (!run) return kInterface;
  if (run->setTactic(0)) return kAttach;
  if (run->onShapeChange(d.in.data(), d.inputs, d.out.data(), d.outputs)) return kShapeChange;
  std::vector<const void*> in;
  std::vector<void*> out;
  for (int i = 0; i < d.inputs; ++i) in.push_back(job.inputs[i].data);
  for (int i = 0; i < d.outputs; ++i) out.push_back(job.outputs[i].data);
  const int code = run->enqueue(d.in.data(), d.out.data(), in.data(), out.data(), workspace,
                                static_cast<cudaStream_t>(job.stream));
  return code ? kEnqueue : kDone;
}

// The engine's plugin: from the fields that the built one wrote, and then only its context's copy.
int restore_and_run(const harness_job& job, const Library& library, IPluginV3* built,
                    const Descriptions& d, void* workspace) {
  auto* runtime = static_cast<IPluginV3OneRuntime*>(
      built->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  const PluginFieldCollection* fields = runtime ? runtime->getFieldsToSerialize() : nullptr;
  IPluginV3* restored =
      fields ? library.creator->createPlugin(job.node, fields, TensorRTPhase::kRUNTIME) : nullptr;
  if (!restored) return kRestore;
  auto* loaded = static_cast<IPluginV3OneRuntime*>(
      restored->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  IPluginV3* attached = loaded->attachToContext(nullptr);
  delete restored;
  if (!attached) return kAttach;
  const int step = execute(job, attached, d, workspace);
  delete attached;
  return step;
}

int drive(const harness_job& job, const Library& library) {
  const PluginFieldCollection given{job.field_count, job.fields};
  IPluginV3* created = library.creator->createPlugin(job.node, &given, TensorRTPhase::kBUILD);
  if (!created) return kCreate;
  IPluginV3* plugin = created->clone();
  delete created;
  if (!plugin) return kClone;
  const Descriptions d(job);
  size_t bytes = 0;
  void* workspace = nullptr;
  int step = prepare(job, plugin, d, &bytes);
  if (step == kDone && bytes && library.alloc(&workspace, bytes)) step = kWorkspace;
  if (step == kDone) step = restore_and_run(job, library, plugin, d, workspace);
  if (library.synchronize(job.stream) && step == kDone) step = kEnqueue;
  if (workspace) library.release(workspace);
  delete plugin;
  return step;
}

}  // namespace

// 0, or the step that failed; `heard` gets what the plugin said.
extern "C" __attribute__((visibility("default"))) int harness_run(const harness_job* job,
                                                                  char* heard, size_t bytes) {
  g_heard.clear();
  Library library;
  int step = open_library(*job, &library);
  if (step == kDone) step = drive(*job, library);
  std::snprintf(heard, bytes, "%s", g_heard.c_str());
  if (library.handle) dlclose(library.handle);
  return step;
}
