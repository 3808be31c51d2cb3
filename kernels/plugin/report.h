// Messages to the host's logger, the one way these plugins speak.
#pragma once

#include "trt.h"

namespace cm_plugin {

// Which node is meant: its plugin and the name it was given. Copied with a plugin's clones.
struct Label {
  char text[96] = "";
};

Label make_label(const char* plugin, const char* node);

// Where the logger is found, an ILoggerFinder of the host; null takes it away.
void set_logger_finder(void* finder);

// One error, as printf formats it; nothing where the host gave no logger. Always false, so that a
// check can end with it.
__attribute__((format(printf, 2, 3))) bool refuse(const Label& label, const char* format, ...);

const char* name_of(DataType type);

// "[1,80,?,?]"; a size that is not known yet is a question mark.
struct DimsText {
  char text[128];
  explicit DimsText(const Dims& dims);
};

}  // namespace cm_plugin
