// Input and output of the host programs: a directory with case.txt, which has a line "name value ..." for
// each field, and arrays as raw files.
#pragma once

#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../../csrc/cuda/kernels/mask.cuh"

struct Case {
  std::string directory;
  std::map<std::string, std::string> fields;

  bool has(const std::string& name) const { return fields.count(name) > 0; }
  template <class T>
  std::vector<T> list(const std::string& name) const {
    std::vector<T> values;
    if (!has(name)) return values;
    std::istringstream in(fields.at(name));
    for (T value; in >> value;) values.push_back(value);
    return values;
  }
  template <class T>
  T one(const std::string& name, T otherwise) const {
    return has(name) ? list<T>(name).at(0) : otherwise;
  }
};

template <class Element>
std::vector<Element> read(const Case& c, const std::string& name) {
  std::ifstream in(c.directory + "/" + name + ".bin", std::ios::binary);
  if (!in) throw std::runtime_error("no file " + name);
  in.seekg(0, std::ios::end);
  std::vector<Element> elements(static_cast<size_t>(in.tellg()) / sizeof(Element));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(elements.data()),
          static_cast<std::streamsize>(elements.size() * sizeof(Element)));
  return elements;
}

template <class Element>
void write(const Case& c, const std::string& name, const std::vector<Element>& elements) {
  std::ofstream out(c.directory + "/" + name + ".bin", std::ios::binary);
  out.write(reinterpret_cast<const char*>(elements.data()),
            static_cast<std::streamsize>(elements.size() * sizeof(Element)));
}

inline Case read_case(const std::string& directory) {
  Case c{directory, {}};
  std::ifstream in(directory + "/case.txt");
  for (std::string line; std::getline(in, line);) {
    const size_t space = line.find(' ');
    c.fields[line.substr(0, space)] = space == std::string::npos ? "" : line.substr(space + 1);
  }
  return c;
}

// Returns the type of pixels that a field names: an integer type, or float32.
inline ssim_fused::cuda::PixelType pixel_type(const Case& c, const std::string& field) {
  using ssim_fused::cuda::PixelType;
  const auto type = c.one<std::string>(field, "float32");
#define SSIM_TYPE(name, Stored, scalar) \
  if (type == #name) return PixelType::name;
  SSIM_FOR_INTEGER_PIXELS(SSIM_TYPE)
#undef SSIM_TYPE
  if (type != "float32") throw std::runtime_error("unknown type of pixels " + type);
  return PixelType::float32;
}

// Returns the pixel term that the case names.
inline ssim_fused::PixelTerm pixel_term(const Case& c) {
  const auto name = c.one<std::string>("pixels", "none");
  if (const auto term = ssim_fused::pixel_term_of(name)) return *term;
  throw std::runtime_error("unknown pixel term " + name);
}

// Returns the type of mask that a field names.
inline ssim_fused::cuda::WeightType weight_type(const Case& c, const std::string& field) {
  using ssim_fused::cuda::WeightType;
  const auto type = c.one<std::string>(field, "bool");
#define SSIM_TYPE(name, Stored, scalar) \
  if (type == #name) return WeightType::name;
  SSIM_FOR_FLOAT_PIXELS(SSIM_TYPE)
#undef SSIM_TYPE
  if (type != "bool") throw std::runtime_error("unknown type of masks " + type);
  return WeightType::boolean;
}

// Whether the program is compiled for a type. The macro SSIM_SIMT_TYPES lists the types; if empty, it is all
// types.
#if !defined(SSIM_SIMT_TYPES)
#define SSIM_SIMT_TYPES
#endif
template <class Storage, class... Types>
constexpr bool is_one_of(void (*)(Types...)) {
  return sizeof...(Types) == 0 || (std::is_same_v<Storage, Types> || ...);
}
template <class Storage>
constexpr bool kIsCompiled = is_one_of<Storage>(static_cast<void (*)(SSIM_SIMT_TYPES)>(nullptr));

// Runs the case that the command line names: calls run_case(case, std::type_identity<Storage>) for its type.
template <class F>
int run_program(int argc, char** argv, F&& run_case) {
  if (argc != 2) return std::cerr << "usage: " << argv[0] << " CASE_DIRECTORY\n", 2;
  const Case c = read_case(argv[1]);
  const auto dtype = c.one<std::string>("dtype", "");
  using namespace ssim_fused::cuda;
  const auto run = [&]<class Storage>(std::type_identity<Storage> storage) {
    if constexpr (kIsCompiled<Storage>) return run_case(c, storage), 0;
    return std::cerr << "the program is not compiled for " << dtype << "\n", 2;
  };
#define SSIM_RUN(name, Storage, scalar) \
  if (dtype == #name) return run(std::type_identity<Storage>{});
  SSIM_FOR_FLOAT_PIXELS(SSIM_RUN)
#undef SSIM_RUN
#define SSIM_RUN(name, Stored, scalar) \
  if (dtype == #name) return run(std::type_identity<AnyPixel>{});
  SSIM_FOR_INTEGER_PIXELS(SSIM_RUN)
#undef SSIM_RUN
  return std::cerr << "unknown dtype " << dtype << "\n", 2;
}
