#include <charconv>

#include <fmt/format.h>

namespace fmt {
inline namespace small {
namespace {

constexpr std::size_t kLongest = 64;  // digits of any number

void append_number(std::string& text, const Argument& argument, int base, std::size_t width) {
  char digits[kLongest];
  char* const end = digits + kLongest;
  const std::to_chars_result result =
      argument.kind == Argument::kFloat    ? std::to_chars(digits, end, static_cast<float>(argument.real))
      : argument.kind == Argument::kDouble ? std::to_chars(digits, end, argument.real)
      : argument.kind == Argument::kSigned ? std::to_chars(digits, end, argument.integer, base)
                                           : std::to_chars(digits, end, static_cast<uint64_t>(argument.integer), base);
  const auto length = static_cast<std::size_t>(result.ptr - digits);
  if (length < width) text.append(width - length, '0');
  text.append(digits, length);
}

// `spec` is what stands between the braces: nothing, or :0Nx.
void append(std::string& text, const Argument& argument, std::string_view spec) {
  if (argument.kind == Argument::kText) {
    text.append(argument.text);
    return;
  }
  std::size_t width = 0;
  const bool hexadecimal = spec.size() > 2 && spec.back() == 'x';
  if (hexadecimal) std::from_chars(spec.data() + 1, spec.data() + spec.size() - 1, width);
  append_number(text, argument, hexadecimal ? 16 : 10, width);
}

}  // namespace

std::string format_all(std::string_view format, const Argument* arguments, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      text.push_back(c);
      ++i;
    } else if (c == '{' && count > 0) {
      const std::size_t end = format.find('}', i);
      if (end == std::string_view::npos) break;
      append(text, *arguments, format.substr(i + 1, end - i - 1));
      ++arguments;
      --count;
      i = end;
    } else {
      text.push_back(c);
    }
  }
  return text;
}

}  // namespace small
}  // namespace fmt
