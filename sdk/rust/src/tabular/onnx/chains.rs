//! What becomes of each column on its way through a graph, and the steps that do the same.
//!
//! Owns [`Chains`]: every column of every value of a graph, as one operation on one earlier column (all that scikit-learn
//! does to prepare tables works column by column), and the way from there to [`Steps`], which change columns in place: a
//! column that is still needed is copied first. Separate from what ONNX's operations mean. Bounded by: [`WORK_MAX`], for
//! what is made and for the steps together, so that a small file cannot stand for a large document. On failure: `invalid`
//! says that there is too much, or which operation cannot stand alone.

use super::super::{Affine, Categories, Fill, Step, Steps};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// Units of work and memory, about a byte each.
const WORK_MAX: usize = 32 << 20;
/// What a column costs beside what its operation holds.
const COLUMN_COST: usize = 64;

/// A column.
pub(super) type Id = usize;

/// What makes a column of another one.
#[derive(Debug, PartialEq)]
pub(super) enum Op {
    /// A column of the frame.
    Input,
    /// A number for what is missing or NaN.
    Fill(f64),
    /// A string for what is missing.
    FillText(Rc<str>),
    /// `(x - subtract) * multiply`.
    Affine(Affine),
    /// Within bounds.
    Clip(f64, f64),
    /// How many edges are at most x.
    Bucket(Vec<f64>),
    /// A number for each category.
    Lookup { categories: Categories, values: Vec<f64>, otherwise: f64 },
    /// Columns of 0 and 1, which are the next ids; they are named by the list, which is as long.
    Hot { categories: Categories, names: Vec<String> },
    /// One column of a [`Op::Hot`].
    Pick(usize),
    /// These texts become another one. Not a step: looked through by what reads categories.
    Replace { from: Vec<String>, to: String },
    /// The whole part of a number. Not a step either.
    Whole { rounds: bool },
}

impl Op {
    fn cost(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| 32 + text.len()).sum::<usize>();
        let categories = |list: &Categories| match list {
            Categories::Numbers(numbers) => 8 * numbers.len(),
            Categories::Texts(list) => texts(list),
        };
        let held = match self {
            Op::Bucket(edges) => 8 * edges.len(),
            Op::Lookup { categories: list, values, .. } => categories(list) + 8 * values.len(),
            Op::Hot { categories: list, names } => categories(list) + texts(names),
            Op::Replace { from, to } => texts(from) + to.len(),
            _ => 0,
        };
        // Once here, once in a step, and what builds them.
        COLUMN_COST + 3 * held
    }
}

struct Made {
    op: Op,
    from: Id,
    /// Of the column of the frame that it comes from, and of the category.
    name: Rc<str>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Chains {
    made: Vec<Made>,
    inputs: Vec<Id>,
    work: usize,
}

impl Chains {
    /// Accounts for work or memory.
    pub fn spend(&mut self, units: usize) -> Result<()> {
        self.work = self.work.saturating_add(units);
        match self.work <= WORK_MAX {
            true => Ok(()),
            false => Err(Error::invalid(
                "the graph makes more columns or longer tables than steps may have; prepare fewer columns in one node",
            )),
        }
    }

    pub fn input(&mut self, name: &str) -> Result<Id> {
        let id = self.push(Op::Input, self.made.len(), Rc::from(name))?;
        self.inputs.push(id);
        Ok(id)
    }

    pub fn op(&self, id: Id) -> &Op {
        &self.made[id].op
    }

    /// The column that this one is made of.
    pub fn from(&self, id: Id) -> Id {
        self.made[id].from
    }

    pub fn add(&mut self, from: Id, op: Op) -> Result<Id> {
        let name = self.made[from].name.clone();
        self.push(op, from, name)
    }

    fn push(&mut self, op: Op, from: Id, name: Rc<str>) -> Result<Id> {
        self.spend(op.cost() + name.len())?;
        self.made.push(Made { op, from, name });
        Ok(self.made.len() - 1)
    }

    /// The columns for these categories.
    pub fn hot(&mut self, from: Id, categories: Categories, names: Vec<String>) -> Result<Vec<Id>> {
        let base = self.made[from].name.clone();
        let named: Vec<Rc<str>> = names.iter().map(|name| Rc::from(format!("{base}={name}"))).collect();
        let hot = self.add(from, Op::Hot { categories, names })?;
        named.into_iter().enumerate().map(|(at, name)| self.push(Op::Pick(at), hot, name)).collect()
    }

    /// The same column for a number that integers do not hold: as reals, if it may have integers.
    pub fn holding(&mut self, id: Id, number: f64) -> Result<Id> {
        let mut at = id;
        loop {
            self.spend(1)?;
            match self.op(at) {
                _ if number.fract() == 0.0 => return Ok(id),
                Op::Input | Op::Bucket(_) => return self.add(id, Op::Affine(Affine { subtract: 0.0, multiply: 1.0 })),
                Op::Fill(_) | Op::Clip(..) => at = self.from(at),
                _ => return Ok(id),
            }
        }
    }

    /// Steps whose table is these columns, in this order.
    pub fn steps(mut self, outputs: &[Id]) -> Result<Steps> {
        let uses = self.uses(outputs);
        let mut writer =
            Writer { steps: Vec::new(), names: vec![None; self.made.len()], taken: HashSet::new(), copies: 0 };
        let live_inputs = self.inputs.iter().filter(|id| uses[**id] > 0);
        let inputs: Vec<String> = live_inputs.map(|id| self.made[*id].name.to_string()).collect();
        writer.taken.extend(inputs.iter().map(|name| Rc::from(name.as_str())));
        if writer.taken.len() < inputs.len() {
            return Err(Error::invalid("two columns of its inputs have one name; name inputs otherwise"));
        }
        writer.steps.push(Step::Keep { columns: inputs });
        let mut left = uses.clone();
        for id in (0..self.made.len()).filter(|id| uses[*id] > 0) {
            self.write(id, &mut left, &mut writer)?;
        }
        let mut order = Vec::with_capacity(outputs.len());
        for id in outputs {
            self.spend(COLUMN_COST + 2 * self.made[*id].name.len())?;
            order.push(writer.take(*id, &mut left));
        }
        let names = distinct(outputs.iter().map(|id| &self.made[*id].name));
        let renamed = order.iter().zip(&names).filter(|(old, new)| old.as_ref() != new.as_str());
        let renamed: BTreeMap<String, String> = renamed.map(|(old, new)| (old.to_string(), new.clone())).collect();
        writer.steps.push(Step::Keep { columns: order.iter().map(|name| name.to_string()).collect() });
        if !renamed.is_empty() {
            writer.steps.push(Step::Rename { names: renamed });
        }
        Ok(Steps(writer.steps))
    }

    /// How often each column is read; 0 for those that lead to no output.
    fn uses(&self, outputs: &[Id]) -> Vec<usize> {
        let mut uses = vec![0; self.made.len()];
        outputs.iter().for_each(|id| uses[*id] += 1);
        for id in (0..self.made.len()).rev().filter(|id| !matches!(self.made[*id].op, Op::Input)) {
            if uses[id] > 0 {
                uses[self.made[id].from] += 1;
            }
        }
        uses
    }

    fn write(&mut self, id: Id, left: &mut [usize], writer: &mut Writer) -> Result<()> {
        let from = self.made[id].from;
        let name = match &self.made[id].op {
            Op::Input => self.made[id].name.clone(),
            Op::Pick(at) => {
                let Op::Hot { categories, .. } = &self.made[from].op else {
                    unreachable!("picked from one-hot columns")
                };
                let category = categories.name(*at);
                Rc::from(format!("{}={category}", writer.name(from)))
            }
            _ => writer.take(from, left),
        };
        let hot = if let Op::Hot { names, .. } = &self.made[id].op { names.len() } else { 0 };
        self.spend(COLUMN_COST + (2 + hot) * name.len())?;
        let column = name.to_string();
        let step = match &self.made[id].op {
            Op::Input | Op::Pick(_) => None,
            Op::Fill(value) => Some(Step::Impute { values: one(column, Fill::Number(*value)) }),
            Op::FillText(text) => Some(Step::Impute { values: one(column, Fill::Text(text.to_string())) }),
            Op::Affine(affine) => Some(Step::Scale { columns: one(column, *affine) }),
            Op::Clip(low, high) => Some(Step::Clip { columns: vec![column], low: *low, high: *high }),
            Op::Bucket(edges) => Some(Step::Bucket { columns: one(column, edges.clone()) }),
            Op::Lookup { categories, values, otherwise } => {
                let (categories, values) = (categories.clone(), values.clone());
                Some(Step::Lookup { column, categories, values, otherwise: *otherwise })
            }
            Op::Hot { categories, .. } => {
                let categories = categories.clone();
                let name = writer.before_hot(name, &categories);
                writer.push(Step::OneHot { column: name.to_string(), categories });
                writer.names[id] = Some(name);
                return Ok(());
            }
            Op::Replace { .. } => {
                let why =
                    format!("text of `{column}` that was filled in is an output, and steps only make numbers of it");
                return Err(Error::invalid(why + "; encode it in the pipeline"));
            }
            Op::Whole { .. } => {
                let why = format!("reals of `{column}` are cast to integers, which steps only do for categories");
                return Err(Error::invalid(why + "; give the input as integers"));
            }
        };
        step.into_iter().for_each(|step| writer.push(step));
        writer.names[id] = Some(name);
        Ok(())
    }
}

fn one<T>(name: String, value: T) -> BTreeMap<String, T> {
    BTreeMap::from([(name, value)])
}

/// The names; the second of a kind is `NAME#2`.
fn distinct<'a>(names: impl Iterator<Item = &'a Rc<str>> + Clone) -> Vec<String> {
    let all: HashSet<&str> = names.clone().map(|name| &**name).collect();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut given: HashSet<String> = HashSet::new();
    let mut free = |name: &'a Rc<str>| loop {
        let count = seen.entry(&**name).or_default();
        *count += 1;
        let named = if *count == 1 { name.to_string() } else { format!("{name}#{count}") };
        if (*count == 1 || !all.contains(named.as_str())) && given.insert(named.clone()) {
            return named;
        }
    };
    names.map(&mut free).collect()
}

/// Steps while they are written.
struct Writer {
    steps: Vec<Step>,
    /// By column: what it is called in the table.
    names: Vec<Option<Rc<str>>>,
    /// Every name that the table ever had.
    taken: HashSet<Rc<str>>,
    copies: usize,
}

impl Writer {
    fn name(&self, id: Id) -> Rc<str> {
        self.names[id].clone().expect("what a column is made of was written before it")
    }

    /// A column to change: the very one if nothing else needs it, else a copy.
    fn take(&mut self, id: Id, left: &mut [usize]) -> Rc<str> {
        left[id] -= 1;
        match left[id] {
            0 => self.name(id),
            _ => self.copy(self.name(id)),
        }
    }

    fn copy(&mut self, old: Rc<str>) -> Rc<str> {
        let new = loop {
            self.copies += 1;
            let new: Rc<str> = Rc::from(format!("{old}#{}", self.copies));
            if self.taken.insert(new.clone()) {
                break new;
            }
        };
        self.push(Step::Copy { columns: one(new.to_string(), old.to_string()) });
        new
    }

    /// The column under a name whose one-hot columns have free names.
    fn before_hot(&mut self, mut name: Rc<str>, categories: &Categories) -> Rc<str> {
        let made = |name: &str| -> Vec<Rc<str>> {
            (0..categories.len()).map(|at| Rc::from(format!("{name}={}", categories.name(at)))).collect()
        };
        let mut names = made(&name);
        while names.iter().any(|name| self.taken.contains(name)) {
            name = self.copy(name);
            names = made(&name);
        }
        self.taken.extend(names);
        name
    }

    /// Adds to the last step where that does the same.
    fn push(&mut self, step: Step) {
        fn merged<T>(known: &mut BTreeMap<String, T>, more: BTreeMap<String, T>) -> Option<BTreeMap<String, T>> {
            if more.keys().any(|name| known.contains_key(name)) {
                return Some(more);
            }
            known.extend(more);
            None
        }
        let rest = match (self.steps.last_mut(), step) {
            (Some(Step::Impute { values: known }), Step::Impute { values }) => {
                merged(known, values).map(|values| Step::Impute { values })
            }
            (Some(Step::Scale { columns: known }), Step::Scale { columns }) => {
                merged(known, columns).map(|columns| Step::Scale { columns })
            }
            (Some(Step::Bucket { columns: known }), Step::Bucket { columns }) => {
                merged(known, columns).map(|columns| Step::Bucket { columns })
            }
            (Some(Step::Clip { columns: known, low, high }), Step::Clip { columns, low: l, high: h })
                if (*low, *high) == (l, h) =>
            {
                known.extend(columns);
                None
            }
            (_, step) => Some(step),
        };
        self.steps.extend(rest);
    }
}
