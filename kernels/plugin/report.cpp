// Messages to the host's logger: buffers of a fixed size, so that nothing here can throw.
#include "report.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace cm_plugin {

namespace {
std::atomic<nvinfer1::ILoggerFinder*> g_finder{nullptr};
}

void set_logger_finder(nvinfer1::ILoggerFinder* finder) { g_finder.store(finder); }

Label make_label(const char* plugin, const char* node) {
  Label label;
  if (node && *node)
    std::snprintf(label.text, sizeof(label.text), "%s '%s'", plugin, node);
  else
    std::snprintf(label.text, sizeof(label.text), "%s", plugin);
  return label;
}

bool refuse(const Label& label, const char* format, ...) {
  nvinfer1::ILoggerFinder* finder = g_finder.load();
  nvinfer1::ILogger* logger = finder ? finder->findLogger() : nullptr;
  if (!logger) return false;
  char text[512];
  const int start = std::snprintf(text, sizeof(text), "centermask: %s: ", label.text);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text + start, sizeof(text) - size_t(start), format, arguments);
  va_end(arguments);
  logger->log(nvinfer1::ILogger::Severity::kERROR, text);
  return false;
}

const char* name_of(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return "float32";
    case DataType::kHALF: return "float16";
    case DataType::kINT8: return "int8";
    case DataType::kINT32: return "int32";
    case DataType::kINT64: return "int64";
    case DataType::kBOOL: return "bool";
    case DataType::kUINT8: return "uint8";
    case DataType::kBF16: return "bfloat16";
    default: return "another type";
  }
}

DimsText::DimsText(const Dims& dims) {
  size_t at = size_t(std::snprintf(text, sizeof(text), "["));
  for (int i = 0; i < dims.nbDims && at < sizeof(text) - 24; ++i) {
    const char* comma = i ? "," : "";
    const int wrote = dims.d[i] < 0
                          ? std::snprintf(text + at, sizeof(text) - at, "%s?", comma)
                          : std::snprintf(text + at, sizeof(text) - at, "%s%lld", comma,
                                          static_cast<long long>(dims.d[i]));
    at += size_t(wrote);
  }
  std::snprintf(text + at, sizeof(text) - at, "]");
}

}  // namespace cm_plugin
