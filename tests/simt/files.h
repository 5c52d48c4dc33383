// What the host programs are given and give back: a directory with case.txt, one "name value ..." a line, and
// arrays as raw files.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

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
