//! Forests and tables of explanations as the kernels read them.
//!
//! Owns the layouts of `cuda/*.cu`, field by field, and how a forest becomes one: nodes of a tree in the order in which a
//! walk meets them, so that `no` stands behind `yes`; thresholds rounded so that a comparison in single precision says what
//! the one in double precision says; sets and lists one behind the other. Separate from what holds and launches them because
//! it is pure.
//!
//! Bounded by: indices of 32 bits, features of 24. What does not fit, and forests that are no sums of constant leaves, are
//! refused (`None`): the processor computes them.

use mainstay_models::explain::{Explainer, TablesView};
use mainstay_models::forest::{Forest, Join, Missing, Node, Split, Test, Tree};

/// Features that a node can name.
const FEATURES_MAX: u32 = 1 << 24;

const LEAF: u32 = 6;
const LEAF_OF_MANY: u32 = 7;
const MISSING_IS_YES: u32 = 1 << 29;

/// `Node` of common.cuh.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub(crate) struct FlatNode {
    pub number: u64,
    pub meta: u32,
    pub next: u32,
}

/// `Tree` of forest.cu.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct FlatTree {
    pub first: u32,
    pub count: u32,
}

/// `Addition` of forest.cu.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct FlatAddition {
    pub value: f64,
    pub output: u32,
    pub unused: u32,
}

/// `Condition` of explain.cu.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct FlatCondition {
    pub number: u64,
    pub meta: u32,
    pub bit_and_yes: u32,
}

/// `Clump` of explain.cu.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct FlatClump {
    pub first_condition: u32,
    pub conditions: u32,
    pub all_set: u32,
    pub unused: u32,
}

/// `Entry` of explain.cu.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct Entry {
    pub clump: u32,
    pub first: u32,
}

/// Sets and lists of all trees.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub set_at: Vec<u32>,
    pub sets: Vec<u32>,
    pub list_at: Vec<u32>,
    pub lists: Vec<f64>,
    is_f32: bool,
}

impl Choices {
    /// List 0 is empty: nothing is in it.
    fn new(is_f32: bool) -> Choices {
        Choices { set_at: vec![0], sets: Vec::new(), list_at: vec![0, 0], lists: Vec::new(), is_f32 }
    }

    fn push_set(&mut self, codes: &[u32]) -> Option<u64> {
        self.sets.extend(codes);
        self.set_at.push(u32::try_from(self.sets.len()).ok()?);
        Some(self.set_at.len() as u64 - 2)
    }

    fn push_list(&mut self, numbers: &[f64]) -> Option<u64> {
        self.lists.extend(numbers);
        self.list_at.push(u32::try_from(self.lists.len()).ok()?);
        Some(self.list_at.len() as u64 - 2)
    }

    /// A split as number and meta.
    fn encode(&mut self, tree: &Tree, split: &Split) -> Option<(u64, u32)> {
        if split.feature >= FEATURES_MAX {
            return None;
        }
        let (number, test) = match split.test {
            Test::Less(threshold) => (self.bits(threshold, Round::Up), 0),
            Test::AtMost(threshold) => (self.bits(threshold, Round::Down), 1),
            Test::Equal(threshold) if self.is_f32 && f64::from(threshold as f32) != threshold => (0, 5),
            Test::Equal(threshold) => (self.bits(threshold, Round::Down), 2),
            Test::Member(set) => (self.push_set(&tree.sets[set as usize])?, 3),
            Test::MemberFromZero(set) => (self.push_set(&tree.sets[set as usize])?, 4),
            Test::OneOf(list) => (self.push_list(&tree.lists[list as usize])?, 5),
        };
        let missing = match split.missing {
            Missing::Nan => 0,
            Missing::NanOrZero => 1,
            Missing::NanIsZero => 2,
        };
        let yes = if split.missing_is_yes { MISSING_IS_YES } else { 0 };
        Some((number, split.feature | test << 24 | missing << 27 | yes))
    }

    /// A threshold in the precision of the comparison. In single precision `x < t` is `x < the least single that is at least
    /// t`, and `x <= t` is `x <= the greatest that is at most t`.
    fn bits(&self, threshold: f64, round: Round) -> u64 {
        if !self.is_f32 {
            return threshold.to_bits();
        }
        let near = threshold as f32;
        let exact = match round {
            Round::Up if f64::from(near) < threshold => near.next_up(),
            Round::Down if f64::from(near) > threshold => near.next_down(),
            _ => near,
        };
        u64::from(exact.to_bits())
    }
}

enum Round {
    Up,
    Down,
}

/// A forest.
#[derive(Clone, Debug)]
pub(crate) struct FlatForest {
    pub nodes: Vec<FlatNode>,
    pub trees: Vec<FlatTree>,
    pub additions: Vec<FlatAddition>,
    pub choices: Choices,
    pub base: Vec<f64>,
    pub features: u32,
    pub outputs: u32,
    pub is_average: bool,
    pub compares_f32: bool,
    pub adds_f32: bool,
}

impl FlatForest {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let choices = &self.choices;
        size_of_val(&*self.nodes)
            + size_of_val(&*self.trees)
            + size_of_val(&*self.additions)
            + size_of_val(&*choices.sets)
            + size_of_val(&*choices.lists)
            + 4 * (choices.set_at.len() + choices.list_at.len())
    }

    /// None when the processor has to compute it.
    pub fn new(forest: &Forest) -> Option<FlatForest> {
        if !matches!(forest.join, Join::Sum | Join::Average) || !forest.has_constant_leaves() || forest.features == 0 {
            return None;
        }
        let mut flat = FlatForest {
            nodes: Vec::new(),
            trees: Vec::with_capacity(forest.trees.len()),
            additions: Vec::new(),
            choices: Choices::new(forest.compares_f32),
            base: forest.base.clone(),
            features: forest.features,
            outputs: forest.outputs,
            is_average: forest.join == Join::Average,
            compares_f32: forest.compares_f32,
            adds_f32: forest.adds_f32,
        };
        forest.trees.iter().try_for_each(|tree| flat.push(tree))?;
        u32::try_from(flat.nodes.len()).ok()?;
        Some(flat)
    }

    fn push(&mut self, tree: &Tree) -> Option<()> {
        let first = u32::try_from(self.nodes.len()).ok()?;
        let (mut order, mut at) = (vec![0_u32], 0);
        while at < order.len() {
            let number = order[at];
            let node = match &tree.nodes[number as usize] {
                Node::Leaf { .. } => self.leaf(tree, number)?,
                Node::Split(split) => {
                    let next = order.len() as u32;
                    order.extend([split.yes, split.no]);
                    let (number, meta) = self.choices.encode(tree, split)?;
                    FlatNode { number, meta, next }
                }
            };
            self.nodes.push(node);
            at += 1;
        }
        self.trees.push(FlatTree { first, count: order.len() as u32 });
        Some(())
    }

    fn leaf(&mut self, tree: &Tree, node: u32) -> Option<FlatNode> {
        let additions = tree.additions(node);
        if let [one] = additions {
            let number = if self.adds_f32 { u64::from((one.value as f32).to_bits()) } else { one.value.to_bits() };
            return Some(FlatNode { number, meta: LEAF << 24, next: one.output });
        }
        let first = u32::try_from(self.additions.len()).ok()?;
        let flat = additions.iter().map(|one| FlatAddition { value: one.value, output: one.output, unused: 0 });
        self.additions.extend(flat);
        Some(FlatNode { number: additions.len() as u64, meta: LEAF_OF_MANY << 24, next: first })
    }
}

/// Tables of an explainer.
#[derive(Clone, Debug)]
pub(crate) struct FlatTables {
    pub tables: Vec<f64>,
    pub clumps: Vec<FlatClump>,
    pub conditions: Vec<FlatCondition>,
    /// By place of the answer, output by feature.
    pub entry_at: Vec<u32>,
    pub entries: Vec<Entry>,
    pub choices: Choices,
    pub features: u32,
    pub places: u32,
    pub compares_f32: bool,
}

impl FlatTables {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.tables)
            + size_of_val(&*self.clumps)
            + size_of_val(&*self.conditions)
            + size_of_val(&*self.entries)
            + 4 * self.entry_at.len()
            + 4 * (self.choices.sets.len() + 2 * self.choices.lists.len())
            + 4 * (self.choices.set_at.len() + self.choices.list_at.len())
    }

    /// None when a tree has no tables, or does not fit.
    pub fn new(explainer: &Explainer) -> Option<FlatTables> {
        let (forest, view) = (explainer.forest(), explainer.tables()?);
        let places = u32::try_from(u64::from(forest.features) * u64::from(forest.outputs)).ok()?;
        u32::try_from(view.entries.len()).ok()?;
        let mut flat = FlatTables {
            tables: view.entries.to_vec(),
            clumps: Vec::with_capacity(view.clumps.len()),
            conditions: Vec::new(),
            entry_at: Vec::new(),
            entries: Vec::new(),
            choices: Choices::new(forest.compares_f32),
            features: forest.features,
            places,
            compares_f32: forest.compares_f32,
        };
        for clump in &view.clumps {
            let first_condition = u32::try_from(flat.conditions.len()).ok()?;
            for condition in &clump.conditions {
                let (number, meta) = flat.choices.encode(&forest.trees[condition.tree], &condition.split)?;
                let bit_and_yes = u32::from(condition.bit) | u32::from(condition.yes) << 8;
                flat.conditions.push(FlatCondition { number, meta, bit_and_yes });
            }
            let (conditions, all_set) = (clump.conditions.len() as u32, (1 << clump.bits) - 1);
            flat.clumps.push(FlatClump { first_condition, conditions, all_set, unused: 0 });
        }
        flat.list_entries(&view)?;
        Some(flat)
    }

    /// For each place of the answer, what is added to it, in order.
    fn list_entries(&mut self, view: &TablesView<'_>) -> Option<()> {
        let mut lists: Vec<Vec<Entry>> = vec![Vec::new(); self.places as usize];
        for (number, clump) in view.clumps.iter().enumerate() {
            let mut first = u32::try_from(clump.first).ok()?;
            for output in clump.outputs {
                for column in clump.columns {
                    lists[(*output * self.features + *column) as usize].push(Entry { clump: number as u32, first });
                    first += 1 << clump.bits;
                }
            }
        }
        self.entry_at.push(0);
        for list in lists {
            self.entries.extend(list);
            self.entry_at.push(u32::try_from(self.entries.len()).ok()?);
        }
        Some(())
    }
}
