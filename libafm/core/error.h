#pragma once

// The exceptions that libafm throws. Every message is one sentence that names the thing, the rule and the value:
//   DeepFMOptions.dropout must be in [0, 1), got 1.5
//   clicks.csv:1042: field 'C7' has 3 values, expected 1
// An option that breaks a rule is a std::invalid_argument (ValueError in Python).

#include <stdexcept>

namespace afm {

// Base of everything below; catch it to catch them all.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A table, schema, label or id that breaks a rule, or data that does not fit a model.
class DataError : public Error {
 public:
  using Error::Error;
};

// A file that is truncated, altered, foreign, or written by a newer libafm.
class FormatError : public Error {
 public:
  using Error::Error;
};

// The operating system refused: no space, no permission, a file that vanished. Not the user's input.
class IoError : public Error {
 public:
  using Error::Error;
};

}  // namespace afm
