//! The plot: for each row a bar per contender, its length the logarithm of its ratio to native.
//!
//! Written by hand: it is bars and labels, a drawing crate would be forty crates more.

use std::fmt::Write as _;

use crate::row::{NATIVE, Row};

const LEFT: f64 = 330.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 9.0;
/// The scale goes from a quarter of native's time to a thousand times of it.
const LEAST: f64 = 0.25;
const MOST: f64 = 1_000.0;
const COLOURS: [&str; 9] = [
    "#9e9e9e", "#8d6e63", "#ef6c00", "#fbc02d", "#43a047", "#00897b", "#3949ab", "#8e24aa",
    "#d81b60",
];

/// The whole document.
pub(super) fn svg(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.median(NATIVE).is_some())
        .collect();
    let names = contenders(&rows);
    let mut body = String::new();
    let mut y = 60.0;
    for row in rows {
        let started = y;
        for (number, name) in names.iter().enumerate() {
            if let Some(ratio) = row.ratio(name) {
                body += &bar(y, ratio, COLOURS[number % COLOURS.len()]);
                y += BAR;
            }
        }
        body += &label(
            LEFT - 8.0,
            f64::midpoint(started, y) + 4.0,
            "end",
            &row.name,
        );
        y += BAR;
    }
    let (width, height) = (LEFT + WIDTH + 70.0, y + 20.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}{}{body}</svg>\n",
        legend(&names),
        grid(height - 20.0)
    )
}

/// All but native, in order of appearance.
fn contenders<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for cell in rows.iter().flat_map(|row| &row.cells) {
        if cell.contender != NATIVE && !names.contains(&cell.contender.as_str()) {
            names.push(cell.contender.as_str());
        }
    }
    names
}

/// Where a ratio lies on the scale.
fn x(ratio: f64) -> f64 {
    let ratio = ratio.clamp(LEAST, MOST);
    LEFT + WIDTH * (ratio / LEAST).ln() / (MOST / LEAST).ln()
}

fn bar(y: f64, ratio: f64, colour: &str) -> String {
    let (from, to) = (x(1.0).min(x(ratio)), x(1.0).max(x(ratio)));
    let (width, height) = ((to - from).max(1.0), BAR - 1.0);
    let text = label(to + 3.0, y + 8.0, "start", &format!("{ratio:.2}"));
    format!(
        "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"{colour}\"/>\n{}",
        text.replace("<text ", "<text font-size=\"8\" ")
    )
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

fn grid(bottom: f64) -> String {
    let mut text = String::new();
    for ratio in [0.5, 1.0, 2.0, 5.0, 10.0, 100.0, 1_000.0] {
        let at = x(ratio);
        let colour = if ratio == 1.0 { "black" } else { "#dddddd" };
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"50\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>"
        );
        text += &label(at, 46.0, "middle", &format!("{ratio}×"));
    }
    text
}

fn legend(names: &[&str]) -> String {
    let mut text = String::new();
    for (number, name) in names.iter().enumerate() {
        let at = 10.0 + 118.0 * (number % 8) as f64;
        let y = 8.0 + 14.0 * (number / 8) as f64;
        let colour = COLOURS[number % COLOURS.len()];
        let _ = writeln!(
            text,
            "<rect x=\"{at}\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
        );
        text += &label(at + 14.0, y + 9.0, "start", name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::x;

    #[test]
    fn equal_ratios_are_equal_lengths() {
        let (one, ten, hundred) = (x(1.0), x(10.0), x(100.0));
        assert!((ten - one - (hundred - ten)).abs() < 1e-9);
        assert_eq!(x(1e9), x(1e3), "what is off the scale ends at its edge");
    }
}
