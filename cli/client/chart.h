// Chart: curves as SVG, drawn by hand so that a page of them needs nothing from outside.
//
// It stands under LoadPlot and knows nothing of load. Values that are not finite are left
// out.
#ifndef TESSERA_CLI_CLIENT_CHART_H_
#define TESSERA_CLI_CLIENT_CHART_H_

#include <string>
#include <vector>

namespace tessera::cli {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;  // In the order of drawing.
  bool joined = true;              // A line; otherwise dots.
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<ChartSeries> series;
};

// Up to that many round values from `low` to `high`, both covered: what an axis is marked
// with. At least two, even where low is high.
std::vector<double> AxisTicks(double low, double high, int count_max);

// One <svg> element with axes from 0 and a legend. Colours come from the style sheet of
// the page: classes c0 to c5.
std::string ChartSvg(const Chart& chart);

// `text` fit for HTML and SVG.
std::string EscapeMarkup(const std::string& text);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_CHART_H_
