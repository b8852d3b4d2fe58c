// Draws a plan, time from left to right and memory from bottom to top, as SVG that any browser
// shows.
#pragma once

#include <string>

#include "cistern/plan/plan.hpp"
#include "cistern/trace/lifetimes.hpp"

namespace cistern::command {

/// One `<rect>` of the class "b" for each buffer that is not empty, with its figures as a tooltip;
/// lines at the peak and at the lower bound. Some 300 bytes a buffer and the id.
[[nodiscard]] std::string plan_picture(const Lifetimes& lifetimes, const Plan& plan);

}  // namespace cistern::command
