//! Chance that can be repeated: one stream of numbers per concern, each from the seed and its own name, so that to take
//! one fault away does not reshuffle all the others.

/// The concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// How long messages take, and which are lost.
    Net,
    /// How long work takes.
    Disk,
    /// When and what clients write.
    Clients,
    /// How clocks err.
    Clock,
}

/// One repeatable sequence (the linear congruential generator of Knuth's MMIX; the high bits are used).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this name for a seed.
    #[must_use]
    pub fn new(seed: u64, name: u64) -> Self {
        // splitmix64, so that neighbouring seeds have nothing in common.
        let mut mixed = seed.wrapping_add(name.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x1234_5678);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self(mixed ^ (mixed >> 31))
    }

    /// A number below this one; 0 if there is none.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    /// One of these.
    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap_or(0)]
    }
}

/// All streams of a world; without a seed nothing is left to chance.
#[derive(Debug)]
pub struct Chances(Option<[Dice; 4]>);

impl Chances {
    /// Those of a seed.
    #[must_use]
    pub fn new(seed: Option<u64>) -> Self {
        Self(seed.map(|seed| [1, 2, 3, 4].map(|name| Dice::new(seed, name))))
    }

    /// Whether anything is left to chance.
    #[must_use]
    pub fn are_there(&self) -> bool {
        self.0.is_some()
    }

    /// A number below this one; always 0 without a seed.
    pub fn roll(&mut self, of: Stream, below: u64) -> u64 {
        match &mut self.0 {
            Some(streams) => streams[of as usize].roll(below),
            None => 0,
        }
    }
}
