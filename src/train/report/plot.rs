//! Curves of a run as SVG, from its metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::metrics::Metric;
use crate::error::Result;
use crate::files::write_atomically;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
const COLORS: [&str; 8] =
    ["#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#2f9e9e", "#7a4b2a", "#555555"];

/// A line of a chart.
pub struct Curve {
    /// As the legend shows it.
    pub name: String,
    /// `x, y`, in rising order of `x`.
    pub points: Vec<(f64, f64)>,
}

/// A chart of `curves` over training minutes.
pub fn chart(title: &str, y_label: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let finite = |values: &mut dyn Iterator<Item = f64>| -> (f64, f64) {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high { (0.0, 1.0) } else { (low, high) }
    };
    let (_, x_max) = finite(&mut points().map(|point| point.0));
    let (low, high) = finite(&mut points().map(|point| point.1));
    let x_max = if x_max > 0.0 { x_max } else { 1.0 };
    let pad = if high > low { 0.06 * (high - low) } else { 0.5 };
    let (low, high) = (low - pad, high + pad);
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x_of = |x: f64| LEFT + x / x_max * plot_width;
    let y_of = |y: f64| TOP + (high - y) / (high - low) * plot_height;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    for y in ticks(low, high) {
        let at = y_of(y);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(y)
        );
    }
    for x in ticks(0.0, x_max) {
        let at = x_of(x);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#eee\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            short(x)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">minutes of training</text>\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        LEFT + plot_width / 2.0,
        HEIGHT - 10.0,
        TOP + plot_height / 2.0,
        escape(y_label)
    );
    for (index, curve) in curves.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let path: Vec<String> = curve
            .points
            .iter()
            .filter(|(_, y)| y.is_finite())
            .map(|&(x, y)| format!("{:.1},{:.1}", x_of(x), y_of(y)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" points=\"{}\"/>",
            path.join(" ")
        );
        if path.len() <= 40 {
            for point in &path {
                let (x, y) = point.split_once(',').unwrap_or_default();
                let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.6\" fill=\"{color}\"/>");
            }
        }
        let y = TOP + 12.0 + 18.0 * index as f64;
        let x = WIDTH - RIGHT + 12.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 6.0,
            x + 17.0,
            escape(&curve.name)
        );
    }
    svg + "</svg>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Round numbers within `low..=high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 6.0;
    let power = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= raw).unwrap_or(raw);
    let mut tick = (low / step).ceil() * step;
    let mut ticks = Vec::new();
    while tick <= high + 1e-9 * step && ticks.len() < 20 {
        ticks.push(if tick.abs() < step * 1e-9 { 0.0 } else { tick });
        tick += step;
    }
    ticks
}

/// Writes `loss.svg` and `scores.svg` into `out`.
///
/// # Errors
/// When they cannot be written.
pub fn write(out: &Path, metrics: &[Metric]) -> Result<()> {
    // Stages follow each other on one axis of time.
    let mut begin: BTreeMap<String, f64> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut total = 0.0;
    let mut length = 0.0;
    let mut losses: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut scores: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for metric in metrics {
        let (stage, seconds) = match metric {
            Metric::Train { stage, seconds, .. }
            | Metric::Score { stage, seconds, .. }
            | Metric::Done { stage, seconds, .. } => (stage, *seconds),
        };
        if order.last() != Some(stage) {
            total += length;
            order.push(stage.clone());
            begin.insert(stage.clone(), total);
        }
        length = seconds;
        let minutes = (begin[stage] + seconds) / 60.0;
        match metric {
            Metric::Train { loss, .. } => {
                losses.entry(stage.clone()).or_default().push((minutes, *loss));
            }
            Metric::Score { model, set, metric, value, .. } if model != "file" => {
                let name = format!("{model}, {set}, {metric}");
                scores.entry(name).or_default().push((minutes, *value));
            }
            _ => {}
        }
    }
    let curves = |map: BTreeMap<String, Vec<(f64, f64)>>, relative: bool| -> Vec<Curve> {
        map.into_iter()
            .map(|(name, mut points)| {
                // Losses of different stages share no unit: each is shown relative to its start.
                if let Some(&(_, first)) = points.first().filter(|_| relative) {
                    points.iter_mut().for_each(|point| point.1 /= first);
                }
                Curve { name, points }
            })
            .collect()
    };
    let loss = chart("Training loss", "loss / first loss of its stage", &curves(losses, true));
    write_atomically(&out.join("loss.svg"), loss.as_bytes())?;
    let scores = chart("Dev scores", "× 100", &curves(scores, false));
    write_atomically(&out.join("scores.svg"), scores.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_survive_odd_numbers() {
        let odd = [
            Curve { name: "a<b".into(), points: vec![(0.0, f64::NAN), (1.0, 2.0)] },
            Curve { name: "empty".into(), points: vec![] },
        ];
        let svg = chart("t", "y", &odd);
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN") && svg.ends_with("</svg>\n"));
        assert!(chart("t", "y", &[]).ends_with("</svg>\n"));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 6.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(ticks(81.3, 84.2).contains(&82.0));
    }
}
