// The synchronization sites of the kernels: every call of a barrier, a wait for copies, a commit of copies,
// or a ticket, named by file and line, as in "march.cuh:118". A run can list the sites that it reached, and
// can leave one out or weaken it, to test whether anything notices (test_simt_mutants.py):
//
//   SSIM_SIMT_SITES=FILE      append the sites that were reached to FILE, one per line
//   SSIM_SIMT_LEAVE_OUT=SITE  skip the call at SITE; a ticket there is not a fence
//   SSIM_SIMT_WEAKEN=SITE     treat the block barrier at SITE as a warp barrier
#pragma once

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <source_location>
#include <string>
#include <vector>

namespace simt {

using Place = std::source_location;

inline const char* file_of(const Place& place) {
  const char* const slash = std::strrchr(place.file_name(), '/');
  return slash ? slash + 1 : place.file_name();
}
inline std::string name_of(const Place& place) {
  return std::string(file_of(place)) + ":" + std::to_string(place.line());
}
inline bool is_same(const Place& a, const Place& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

// A site that an environment variable names.
class NamedSite {
 public:
  explicit NamedSite(const char* variable) {
    const char* const value = std::getenv(variable);
    const char* const colon = value ? std::strchr(value, ':') : nullptr;
    if (!colon) return;
    file_.assign(value, colon);
    line_ = static_cast<unsigned>(std::atoi(colon + 1));
  }
  bool is_at(const Place& place) const { return place.line() == line_ && file_ == file_of(place); }

 private:
  std::string file_;
  unsigned line_ = 0;
};

// Collects the sites that a run reaches, and appends them to a file when the program ends.
class ReachedSites {
 public:
  ReachedSites() = default;
  ReachedSites(const ReachedSites&) = delete;
  ~ReachedSites() {
    if (!path_) return;
    std::ofstream out(path_, std::ios::app);
    for (const Place& place : places_) out << name_of(place) << "\n";
  }
  void add(const Place& place) {
    if (!path_) return;
    for (const Place& known : places_)
      if (is_same(known, place)) return;
    places_.push_back(place);
  }

 private:
  const char* const path_ = std::getenv("SSIM_SIMT_SITES");
  std::vector<Place> places_;
};

enum class Change { none, left_out, weakened };

// Records a call of a synchronizing function, and returns how the run changes it.
inline Change reach(const Place& place) {
  static ReachedSites reached;
  static const NamedSite left_out("SSIM_SIMT_LEAVE_OUT"), weakened("SSIM_SIMT_WEAKEN");
  reached.add(place);
  if (left_out.is_at(place)) return Change::left_out;
  return weakened.is_at(place) ? Change::weakened : Change::none;
}

}  // namespace simt
