#include "cli/client/chart.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"

namespace tessera::cli {
namespace {

// In units of the viewBox; the page scales it.
constexpr double kWidth = 640;
constexpr double kHeight = 360;
constexpr double kLeft = 64;
constexpr double kRight = 16;
constexpr double kTop = 56;
constexpr double kBottom = 48;
constexpr int kTicksMax = 6;
constexpr size_t kNumColours = 6;

struct Axis {
  std::vector<double> ticks;
  double begin = 0;  // Of the drawing, where the first tick is.
  double end = 0;

  double Place(double value) const {
    const double share = (value - ticks.front()) / (ticks.back() - ticks.front());
    return begin + share * (end - begin);
  }
};

bool Finite(const ChartPoint& point) {
  return std::isfinite(point.x) && std::isfinite(point.y);
}

std::string AxesSvg(const Chart& chart, const Axis& x, const Axis& y) {
  std::string out;
  for (const double tick : y.ticks) {
    const double place = y.Place(tick);
    out += fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text class=\"tick\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{:g}</text>",
        kLeft, place, kWidth - kRight, place, kLeft - 6, place + 4, tick);
  }
  for (const double tick : x.ticks) {
    out += fmt::format(
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" "
        "y=\"{:.1f}\">{:g}</text>",
        x.Place(tick), kHeight - kBottom + 18, tick);
  }
  out += fmt::format(
      "<text class=\"label\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>"
      "<text class=\"label\" x=\"8\" y=\"{:.1f}\">{}</text>"
      "<text class=\"title\" x=\"8\" y=\"18\">{}</text>",
      (kLeft + kWidth - kRight) / 2, kHeight - 10, EscapeMarkup(chart.x_label), kTop - 10,
      EscapeMarkup(chart.y_label), EscapeMarkup(chart.title));
  return out;
}

std::string SeriesSvg(const ChartSeries& series, size_t colour, const Axis& x,
                      const Axis& y) {
  std::string out;
  std::string path;
  for (const ChartPoint& point : series.points) {
    if (!Finite(point)) {
      continue;
    }
    const double px = x.Place(point.x);
    const double py = y.Place(point.y);
    path += fmt::format("{:.1f},{:.1f} ", px, py);
    if (!series.joined || series.points.size() == 1) {
      out += fmt::format("<circle class=\"c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\"/>",
                         colour, px, py);
    }
  }
  if (series.joined) {
    out += fmt::format("<polyline class=\"c{}\" points=\"{}\"/>", colour, path);
  }
  return out;
}

// Names in their colours, from the right of the line of the y label.
std::string LegendSvg(const Chart& chart) {
  std::string out;
  double right = kWidth - kRight;
  for (size_t i = chart.series.size(); i-- > 0;) {
    const std::string& name = chart.series[i].name;
    out += fmt::format(
        "<text class=\"legend c{}\" text-anchor=\"end\" x=\"{:.1f}\" "
        "y=\"{:.1f}\">{}</text>",
        i % kNumColours, right, kTop - 10, EscapeMarkup(name));
    right -= 14 + 7 * static_cast<double>(name.size());
  }
  return out;
}

}  // namespace

std::vector<double> AxisTicks(double low, double high, int count_max) {
  if (!(high > low)) {
    high = low + 1;
  }
  const double rough = (high - low) / std::max(count_max - 1, 1);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  }
  const double first = std::floor(low / step);
  const double last = std::ceil(high / step - 1e-9);
  std::vector<double> ticks;
  for (double i = first; i <= last; i += 1) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::string ChartSvg(const Chart& chart) {
  double x_max = 0;
  double y_max = 0;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      if (Finite(point)) {
        x_max = std::max(x_max, point.x);
        y_max = std::max(y_max, point.y);
      }
    }
  }
  const Axis x{AxisTicks(0, x_max, kTicksMax), kLeft, kWidth - kRight};
  const Axis y{AxisTicks(0, y_max, kTicksMax), kHeight - kBottom, kTop};
  std::string out =
      fmt::format("<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {} {}\">",
                  EscapeMarkup(chart.title), kWidth, kHeight);
  out += AxesSvg(chart, x, y);
  for (size_t i = 0; i < chart.series.size(); ++i) {
    out += SeriesSvg(chart.series[i], i % kNumColours, x, y);
  }
  return out + LegendSvg(chart) + "</svg>\n";
}

std::string EscapeMarkup(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace tessera::cli
