// Reading, writing and announcing of attributes.
#include "fields.h"

#include <cstring>

namespace cm_plugin {

namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr double kNotANumber = -1e300;  // below every range

PluginFieldType field_type(Kind kind) {
  return kind == Kind::integer ? PluginFieldType::kINT32 : PluginFieldType::kFLOAT32;
}

template <class T>
double element(const PluginField& field, int i) {
  T value;
  std::memcpy(&value, static_cast<const char*>(field.data) + size_t(i) * sizeof(T), sizeof(T));
  return value == value ? double(value) : kNotANumber;
}

// Parsers differ in the width of what they hand over. An integer is taken for a number, a
// number never for an integer.
bool number(const PluginField& field, int i, Kind kind, double* value) {
  switch (field.type) {
    case PluginFieldType::kINT8: *value = element<int8_t>(field, i); return true;
    case PluginFieldType::kINT16: *value = element<int16_t>(field, i); return true;
    case PluginFieldType::kINT32: *value = element<int32_t>(field, i); return true;
    case PluginFieldType::kINT64: *value = element<int64_t>(field, i); return true;
    case PluginFieldType::kFLOAT32: *value = element<float>(field, i); return kind == Kind::number;
    case PluginFieldType::kFLOAT64: *value = element<double>(field, i); return kind == Kind::number;
    default: return false;
  }
}

char* place(const Attribute& attribute, void* values, int i) {
  return static_cast<char*>(values) + attribute.offset + size_t(i) * 4;
}

bool read_value(const Label& label, const Attribute& a, const PluginField& field, int i,
                void* values) {
  double value = 0;
  if (!number(field, i, a.kind, &value))
    return refuse(label, "attribute %s has field type %d; %s is wanted", a.name, int(field.type),
                  a.kind == Kind::integer ? "an integer" : "a number");
  const bool low = a.above_lowest ? !(value > a.lowest) : !(value >= a.lowest);
  if (low || !(value <= a.highest))
    return refuse(label, "attribute %s is %g; %s %g, at most %g is wanted", a.name, value,
                  a.above_lowest ? "above" : "at least", a.lowest, a.highest);
  const int32_t whole = a.kind == Kind::integer ? int32_t(value) : 0;
  const float real = float(value);
  const void* source = a.kind == Kind::integer ? static_cast<const void*>(&whole) : &real;
  std::memcpy(place(a, values, i), source, 4);
  return true;
}

bool read_field(const Label& label, const Attribute& a, const PluginField& field, void* values) {
  if (!field.data || field.length != a.length)
    return refuse(label, "attribute %s has %d values; %d wanted", a.name,
                  field.data ? int(field.length) : 0, int(a.length));
  for (int i = 0; i < a.length; ++i)
    if (!read_value(label, a, field, i, values)) return false;
  return true;
}

// What the parser itself needs of a node; no attribute of ours.
bool belongs_to_parser(const char* name) {
  return !std::strcmp(name, "plugin_namespace") || !std::strcmp(name, "plugin_version");
}

}  // namespace

bool read_fields(const Label& label, const nvinfer1::PluginFieldCollection* fields,
                 const Attribute* table, int count, void* values) {
  bool seen[kMaxAttributes] = {};
  const int given = fields && fields->fields ? fields->nbFields : 0;
  for (int i = 0; i < given; ++i) {
    const PluginField& field = fields->fields[i];
    if (!field.name) return refuse(label, "an attribute has no name");
    int which = 0;
    while (which < count && std::strcmp(field.name, table[which].name)) ++which;
    if (which == count) {
      if (belongs_to_parser(field.name)) continue;
      return refuse(label, "unknown attribute %.64s", field.name);
    }
    if (seen[which]) return refuse(label, "attribute %s is given twice", field.name);
    if (!read_field(label, table[which], field, values)) return false;
    seen[which] = true;
  }
  for (int i = 0; i < count; ++i)
    if (table[i].required && !seen[i])
      return refuse(label, "attribute %s is missing; export the model again", table[i].name);
  return true;
}

int write_fields(const Attribute* table, int count, const void* values, PluginField* fields) {
  int written = 0;
  for (int i = 0; i < count; ++i) {
    const char* data = static_cast<const char*>(values) + table[i].offset;
    const char zero[4] = {};
    if (!table[i].required && !std::memcmp(data, zero, 4)) continue;
    fields[written++] = PluginField{table[i].name, data, field_type(table[i].kind),
                                    table[i].length};
  }
  return written;
}

void announce_fields(const Attribute* table, int count, PluginField* fields) {
  for (int i = 0; i < count; ++i)
    fields[i] = PluginField{table[i].name, nullptr, field_type(table[i].kind), table[i].length};
}

}  // namespace cm_plugin
