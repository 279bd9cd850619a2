//! Figures as the programs print them: a line of JSON for each contender.

/// Prints what one contender came to: each figure's name and its value in each turn.
pub fn print(contender: &str, figures: &[(&str, Vec<f64>)]) {
    let figures: Vec<_> = figures.iter().map(|(name, values)| format!("\"{name}\": {values:.2?}")).collect();
    println!("{{\"contender\": \"{contender}\", \"figures\": {{{}}}}}", figures.join(", "));
}

/// The mean of the middle half: as steady as the median, and finer than the clock's steps.
pub fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let outer = values.len() / 4;
    let half = &values[outer..values.len() - outer];
    half.iter().sum::<f64>() / half.len() as f64
}
