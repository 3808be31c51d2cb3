// The plugin interface: NVIDIA's headers where the build found them, else our own declaration.
//
// The build decides, not the preprocessor, so that the same command gives the same library.
#pragma once

#if defined(CM_NVIDIA_HEADERS)
#include <NvInferRuntime.h>
#else
#include "trt_interface.h"
#endif

namespace cm_plugin {

constexpr const char* kNamespace = "centermask";
constexpr const char* kVersion = "1";

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

}  // namespace cm_plugin
