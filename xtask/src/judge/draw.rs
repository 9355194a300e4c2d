//! Small charts as SVG.

use std::fmt::Write as _;

/// A curve.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves over one axis; the other is logarithmic unless said otherwise.
pub(super) struct Chart {
    title: &'static str,
    across: &'static str,
    up: &'static str,
    pub(super) lines: Vec<Line>,
    pub(super) level: Option<(f64, &'static str)>,
    pub(super) linear: bool,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const BELOW: f64 = 40.0;
const ABOVE: f64 = 36.0;
const RIGHT: f64 = 110.0;

impl Chart {
    pub(super) fn new(title: &'static str, across: &'static str, up: &'static str) -> Self {
        Self { title, across, up, lines: Vec::new(), level: None, linear: false }
    }

    fn height(&self, value: f64) -> f64 {
        let part = if self.linear { value } else { (value.clamp(1e-3, 1e5).log10() + 3.0) / 8.0 };
        HEIGHT - BELOW - part * (HEIGHT - BELOW - ABOVE)
    }

    pub(super) fn svg(&self) -> String {
        let far = self.lines.iter().flat_map(|l| &l.points).map(|p| p.0).fold(1.0, f64::max);
        let across = |x: f64| LEFT + x / far * (WIDTH - LEFT - RIGHT);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
            self.title
        );
        let ticks: Vec<(f64, String)> = if self.linear {
            (0..=4).map(|i| (f64::from(i) / 4.0, format!("{} %", i * 25))).collect()
        } else {
            [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0].map(|v| (v, format!("{v}"))).into()
        };
        for (value, text) in ticks {
            let y = self.height(value);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for i in 0..=5 {
            let value = far * f64::from(i) / 5.0;
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{value:.0}</text>",
                across(value),
                HEIGHT - BELOW + 16.0
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (WIDTH - RIGHT + LEFT) / 2.0,
            HEIGHT - 6.0,
            self.across
        );
        let _ = writeln!(
            out,
            "<text x=\"14\" y=\"{}\" transform=\"rotate(-90 14 {})\" text-anchor=\"middle\">{}</text>",
            HEIGHT / 2.0,
            HEIGHT / 2.0,
            self.up
        );
        if let Some((value, name)) = self.level {
            let y = self.height(value);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#000\" stroke-dasharray=\"4 3\"/><text x=\"{}\" y=\"{:.1}\">{name}</text>",
                WIDTH - RIGHT,
                LEFT + 6.0,
                y - 4.0
            );
        }
        for (number, line) in self.lines.iter().enumerate() {
            let points: String =
                line.points.iter().map(|(x, y)| format!("{:.1},{:.1} ", across(*x), self.height(*y))).collect();
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" points=\"{}\"/>",
                line.color,
                points.trim_end()
            );
            let y = ABOVE + 16.0 * number as f64 + 8.0;
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{y:.0}\" fill=\"{}\">{}</text>",
                WIDTH - RIGHT + 12.0,
                line.color,
                line.name
            );
        }
        out.push_str("</svg>\n");
        out
    }
}
