// A plugin's attributes: one table says their names, types and ranges, and reading, writing and
// announcing them all follow it.
#pragma once

#include "report.h"

namespace cm_plugin {

constexpr int kMaxAttributes = 4;

enum class Kind { integer, number };  // int32_t and float in memory; INT32 and FLOAT32 as fields

struct Attribute {
  const char* name;
  Kind kind;
  int32_t length;   // values in a row
  size_t offset;    // of the first, in the plugin's Values
  bool required;    // else 0 stands for "not given"
  double lowest, highest;
  bool above_lowest;  // the lowest itself is refused
};

// Fills `values` from fields; false, with a message, where one is missing, unknown, of another
// type or length, or out of its range. `values` must be all zero before.
bool read_fields(const Label& label, const nvinfer1::PluginFieldCollection* fields,
                 const Attribute* table, int count, void* values);

// The fields that make the same plugin again: those given. Returns how many.
int write_fields(const Attribute* table, int count, const void* values,
                 nvinfer1::PluginField* fields);

// The fields that a creator announces.
void announce_fields(const Attribute* table, int count, nvinfer1::PluginField* fields);

}  // namespace cm_plugin
