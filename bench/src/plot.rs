//! Plots as SVG, without scripts or anything from elsewhere: what a report needs and no more.

use std::fmt::Write as _;

/// How a value becomes a place on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances for equal differences, from 0 or the smallest value, whichever is less.
    Linear,
    /// Equal distances for equal ratios; values at or below 0 have no place.
    Log,
    /// For percentiles: `1 / (1 − p)` on a logarithmic scale, labelled with `p`. Values are below 1.
    Nines,
}

/// What is drawn along an axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// Its scale.
    pub scale: Scale,
}

/// A line through points.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// x and y of each point, in order.
    pub points: Vec<(f64, f64)>,
    /// Whether each point gets a dot.
    pub dots: bool,
}

/// A vertical line with a word.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// The word.
    pub label: String,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is shown.
    pub series: Vec<Series>,
    /// What is worth pointing at.
    pub marks: Vec<Mark>,
}

/// Size of a plot, and room around it for labels, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 52.0;

/// Colours that differ for the colour-blind, too (Okabe and Ito's set, without yellow and black).
const COLORS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// About how many labels an axis has: more run into each other.
const TICKS: f64 = 6.0;

/// The ends of an axis, on its scale, and its labels.
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Scale {
    /// The place of a value, in units of the scale; none if it has no place.
    fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Linear => value,
            Self::Log if value > 0.0 => value.log10(),
            Self::Nines if value < 1.0 => -(1.0 - value).log10(),
            _ => return None,
        };
        place.is_finite().then_some(place)
    }
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = values
            .filter_map(|value| scale.place(value))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| {
                (low.min(place), high.max(place))
            });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match scale {
            Scale::Linear => low = low.min(0.0),
            Scale::Log => (low, high) = (low.floor(), high.ceil()),
            Scale::Nines => low = 0.0,
        }
        if (high - low).abs() < f64::EPSILON {
            high = low + 1.0;
        }
        Self { scale, low, high }
    }

    /// 0 at the low end, 1 at the high one.
    fn part(&self, value: f64) -> Option<f64> {
        let place = self.scale.place(value)?;
        Some(((place - self.low) / (self.high - self.low)).clamp(0.0, 1.0))
    }

    /// Values with a label, and the label.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step((self.high - self.low) / TICKS);
                let mut ticks = Vec::new();
                let mut value = (self.low / step).ceil() * step;
                while value <= self.high + step * 1e-9 {
                    ticks.push((value, number(value)));
                    value += step;
                }
                ticks
            }
            Scale::Log => {
                let step = ((self.high - self.low) / TICKS).ceil().max(1.0);
                let mut ticks = Vec::new();
                let mut place = self.low;
                while place <= self.high {
                    let value = 10f64.powf(place);
                    ticks.push((value, number(value)));
                    place += step;
                }
                ticks
            }
            Scale::Nines => [
                0.0,
                0.5,
                0.9,
                0.99,
                0.999,
                0.9999,
                0.99999,
                0.999_999,
                0.999_999_9,
            ]
            .into_iter()
            .filter(|&value| {
                self.scale
                    .place(value)
                    .is_some_and(|place| place <= self.high)
            })
            .map(|value| (value, format!("{} %", trimmed(value * 100.0, 5))))
            .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|digit| digit * power >= step * (1.0 - 1e-9))
        .unwrap_or(10.0);
    digit * power
}

/// A number as short as it can be read: `12.5k`, `3M`, `0.02`.
#[must_use]
pub fn number(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", trimmed(value, 3))
}

/// With at most so many decimals, and without zeros at the end.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}

/// Text as it may stand in HTML and SVG.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Plot {
    /// The plot as an `<svg>` element.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let marks = self.marks.iter().map(|mark| mark.x);
        let x = Ruler::new(self.x.scale, points().map(|point| point.0).chain(marks));
        let y = Ruler::new(self.y.scale, points().map(|point| point.1));
        let across = |value| Some(LEFT + x.part(value)? * (WIDTH - LEFT - RIGHT));
        let up = |value| Some(HEIGHT - BOTTOM - y.part(value)? * (HEIGHT - TOP - BOTTOM));
        let mut svg = String::new();
        let mut put = |line: String| {
            svg += &line;
            svg.push('\n');
        };
        put(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#333\">"
        ));
        put(format!("<title>{}</title>", escaped(&self.title)));
        put(format!(
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"15\" font-weight=\"600\">{}</text>",
            escaped(&self.title)
        ));
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in x.ticks() {
            let Some(at) = across(value) else { continue };
            put(format!(
                "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#e5e5e5\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            ));
        }
        for (value, label) in y.ticks() {
            let Some(at) = up(value) else { continue };
            put(format!(
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e5e5e5\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                at + 4.0
            ));
        }
        put(format!(
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" stroke=\"#888\" fill=\"none\"/>"
        ));
        put(format!(
            "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            HEIGHT - 12.0,
            escaped(&self.x.label)
        ));
        put(format!(
            "<text x=\"{LEFT}\" y=\"{:.1}\" dx=\"-76\">{}</text>",
            TOP - 12.0,
            escaped(&self.y.label)
        ));
        for Mark { x, label } in &self.marks {
            let Some(at) = across(*x) else { continue };
            put(format!(
                "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                at - 4.0,
                TOP + 12.0,
                escaped(label)
            ));
        }
        for (index, series) in self.series.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            let mut path = String::new();
            let mut dots = String::new();
            for &(x, y) in &series.points {
                let (Some(x), Some(y)) = (across(x), up(y)) else {
                    continue;
                };
                let command = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{command}{x:.1} {y:.1}");
                if series.dots {
                    let _ = write!(
                        dots,
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"
                    );
                }
            }
            put(format!(
                "<path d=\"{path}\" stroke=\"{color}\" stroke-width=\"1.8\" fill=\"none\"/>{dots}"
            ));
            // The legend: from right to left, on the title's line.
            let at = right - 110.0 * (self.series.len() - index) as f64;
            put(format!(
                "<path d=\"M{at:.1} 34h18\" stroke=\"{color}\" stroke-width=\"3\"/>\
                 <text x=\"{:.1}\" y=\"38\">{}</text>",
                at + 24.0,
                escaped(&series.name)
            ));
        }
        svg += "</svg>\n";
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, points: Vec<(f64, f64)>) -> Plot {
        Plot {
            title: "a < b".into(),
            x: Axis {
                label: "x".into(),
                scale: Scale::Linear,
            },
            y: Axis {
                label: "y".into(),
                scale,
            },
            series: vec![Series {
                name: "one".into(),
                points,
                dots: true,
            }],
            marks: vec![Mark {
                x: 1.0,
                label: "here".into(),
            }],
        }
    }

    #[test]
    fn points_are_where_they_belong() {
        let svg = plot(Scale::Linear, vec![(0.0, 0.0), (10.0, 100.0)]).to_svg();
        let bottom = HEIGHT - BOTTOM;
        let (left, right) = (LEFT, WIDTH - RIGHT);
        assert!(
            svg.contains(&format!("M{left:.1} {bottom:.1}L{right:.1} {TOP:.1}")),
            "{svg}"
        );
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn what_has_no_place_is_left_out() {
        for points in [
            vec![],
            vec![(1.0, 0.0)],
            vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)],
            vec![(1.0, -1.0), (2.0, 5.0)],
        ] {
            for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
                let svg = plot(scale, points.clone()).to_svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn labels_are_round() {
        let labels = |scale, low: f64, high: f64| -> Vec<String> {
            let ruler = Ruler::new(scale, [low, high].into_iter());
            ruler.ticks().into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(
            labels(Scale::Linear, 0.0, 1e6),
            ["0", "200k", "400k", "600k", "800k", "1M"]
        );
        assert_eq!(labels(Scale::Log, 3.0, 900.0), ["1", "10", "100", "1000"]);
        assert_eq!(
            labels(Scale::Nines, 0.0, 0.9995),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %"]
        );
    }
}
