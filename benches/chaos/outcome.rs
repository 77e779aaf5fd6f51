//! What a scenario came to: numbers beside their bounds.

use serde::Serialize;

/// One number and the bound that it keeps to.
#[derive(Debug, Serialize)]
pub struct Measure {
    name: &'static str,
    value: f64,
    /// `None` is told for its own sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<f64>,
    #[serde(skip)]
    least: bool,
}

impl Measure {
    /// A number that may not be above `bound`.
    pub fn most(name: &'static str, value: f64, bound: f64) -> Self {
        Self { name, value, bound: Some(bound), least: false }
    }

    /// A number that may not be below `bound`.
    pub fn least(name: &'static str, value: f64, bound: f64) -> Self {
        Self { name, value, bound: Some(bound), least: true }
    }

    /// A number without a bound.
    pub fn told(name: &'static str, value: f64) -> Self {
        Self { name, value, bound: None, least: false }
    }

    fn passed(&self) -> bool {
        let kept = |bound| if self.least { self.value >= bound } else { self.value <= bound };
        self.bound.is_none_or(kept)
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:.2}", self.name, self.value)?;
        match self.bound {
            Some(bound) => write!(f, " (at {} {bound:.2})", if self.least { "least" } else { "most" }),
            None => Ok(()),
        }
    }
}

/// What one scenario came to.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub scenario: &'static str,
    pub transport: &'static str,
    pub seed: u64,
    pub seconds: f64,
    pub measures: Vec<Measure>,
    pub passed: bool,
}

impl Outcome {
    pub fn new(
        scenario: &'static str,
        transport: &'static str,
        seed: u64,
        seconds: f64,
        measures: Vec<Measure>,
    ) -> Self {
        let passed = measures.iter().all(Measure::passed);
        Self { scenario, transport, seed, seconds, measures, passed }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        write!(f, "{:<11} {:<5} {verdict} in {:.0} s: ", self.scenario, self.transport, self.seconds)?;
        let each: Vec<_> = self.measures.iter().map(ToString::to_string).collect();
        f.write_str(&each.join("; "))
    }
}
