// The two functions that TensorRT looks for in a plugin library.
//
// The host registers the creators; this library calls no registry, whose interface differs
// between versions, and links no libnvinfer. So one library serves TensorRT 10, 11 and RTX.
#include "decode_nms.h"
#include "plugin.h"
#include "roi_align.h"
#include "spatial_attention.h"

#define CM_EXPORT extern "C" __attribute__((visibility("default")))

CM_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static cm_plugin::Creator<cm_plugin::DecodeNMS> decode;
  static cm_plugin::Creator<cm_plugin::PyramidRoIAlign> align;
  static cm_plugin::Creator<cm_plugin::SpatialAttention> attention;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&decode, &align, &attention};
  count = int32_t(sizeof(creators) / sizeof(creators[0]));
  return creators;
}

// An ILoggerFinder; its layout is found out when it is used, see report.cpp.
CM_EXPORT void setLoggerFinder(void* finder) { cm_plugin::set_logger_finder(finder); }
