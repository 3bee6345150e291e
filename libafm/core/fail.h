#pragma once

// Private: throws an exception with a formatted message. fmt checks the format string at compile time.
//   fail<DataError>("field '{}' has no value {}", name, value);

#include <utility>

#include <fmt/format.h>

namespace afm {

template <typename Exception, typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Exception(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace afm
