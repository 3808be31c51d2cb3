// Messages to the host's logger: buffers of a fixed size, so that nothing here can throw.
//
// ILoggerFinder and ILogger are the one place where the border has two shapes. TensorRT-RTX 1.7
// derives both from IVersionedInterface, so that four entries of their virtual tables come before
// the one that is wanted; elsewhere it comes first. The object's run-time type says which it is,
// whatever header this was compiled with.
#include "report.h"

#include <cxxabi.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <typeinfo>

namespace cm_plugin {

namespace {

constexpr int kError = 1;           // ILogger::Severity::kERROR
constexpr int kVersionedEntry = 4;  // after language, interface and the two destructors

std::atomic<void*> g_finder{nullptr};

void** table_of(void* object) { return *static_cast<void***>(object); }

bool is_versioned(void* object) {
  const auto* type = static_cast<const std::type_info*>(table_of(object)[-1]);
  while (type) {
    if (!std::strcmp(type->name(), "N8nvinfer119IVersionedInterfaceE")) return true;
    const auto* derived = dynamic_cast<const abi::__si_class_type_info*>(type);
    type = derived ? derived->__base_type : nullptr;
  }
  return false;
}

// The first function that the interface itself declares.
template <class Function>
Function own_function(void* object) {
  return reinterpret_cast<Function>(table_of(object)[is_versioned(object) ? kVersionedEntry : 0]);
}

void* find_logger() {
  void* finder = g_finder.load();
  return finder ? own_function<void* (*)(void*)>(finder)(finder) : nullptr;
}

}  // namespace

void set_logger_finder(void* finder) { g_finder.store(finder); }

Label make_label(const char* plugin, const char* node) {
  Label label;
  if (node && *node)
    std::snprintf(label.text, sizeof(label.text), "%s '%s'", plugin, node);
  else
    std::snprintf(label.text, sizeof(label.text), "%s", plugin);
  return label;
}

bool refuse(const Label& label, const char* format, ...) {
  void* logger = find_logger();
  if (!logger) return false;
  char text[512];
  const int start = std::snprintf(text, sizeof(text), "centermask: %s: ", label.text);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text + start, sizeof(text) - size_t(start), format, arguments);
  va_end(arguments);
  own_function<void (*)(void*, int, const char*)>(logger)(logger, kError, text);
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
