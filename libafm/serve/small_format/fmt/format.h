#pragma once

// Stands in for {fmt} in the scorer, whose library must be small: what error messages need of it, in 2 kB instead of
// 60. Formats are {} and {:0Nx}. That a format fits its arguments is checked where {fmt} itself compiles the same
// files.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace fmt {
inline namespace small {

struct Argument {
  enum Kind { kText, kSigned, kUnsigned, kFloat, kDouble } kind = kText;
  std::string_view text = {};
  int64_t integer = 0;
  double real = 0;
};

template <typename Value>
Argument argument_of(const Value& value) {
  if constexpr (std::is_same_v<Value, bool>) {
    return {.kind = Argument::kText, .text = value ? "true" : "false"};
  } else if constexpr (std::integral<Value>) {
    return {.kind = std::is_signed_v<Value> ? Argument::kSigned : Argument::kUnsigned,
            .integer = static_cast<int64_t>(value)};
  } else if constexpr (std::floating_point<Value>) {
    return {.kind = sizeof(Value) == sizeof(float) ? Argument::kFloat : Argument::kDouble,
            .real = static_cast<double>(value)};
  } else {
    return {.kind = Argument::kText, .text = std::string_view(value)};
  }
}

std::string format_all(std::string_view format, const Argument* arguments, std::size_t count);

template <typename...>
using format_string = std::string_view;

template <typename... Values>
std::string format(std::string_view format, const Values&... values) {
  const Argument arguments[] = {argument_of(values)..., Argument()};
  return format_all(format, arguments, sizeof...(Values));
}

}  // namespace small
}  // namespace fmt
