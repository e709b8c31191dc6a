//! From the text of a template to its parts.

use std::vec::IntoIter;

use serde_json::{Number, Value};

use super::TemplateError;
use super::evaluate::is_known;

/// How deep expressions and conditions may be nested.
const DEEPEST: u32 = 24;
/// The most tokens of one expression, each of which makes it at most one level deeper.
const MOST_TOKENS: usize = 160;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Expression),
    /// The branches with their conditions, and what holds otherwise.
    If(Vec<(Expression, Vec<Node>)>, Vec<Node>),
}

/// What yields a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Literal(Value),
    Name(String),
    List(Vec<Expression>),
    Attribute(Box<Expression>, String),
    Index(Box<Expression>, Box<Expression>),
    Slice(Box<Expression>, Option<Box<Expression>>, Option<Box<Expression>>),
    /// A filter, a method or a function: the name, and the values it gets, the filtered one first.
    Call(Callee, String, Vec<Expression>),
    /// Whether a value is of a kind.
    Test(Box<Expression>, String),
    Not(Box<Expression>),
    Minus(Box<Expression>),
    Binary(&'static str, Box<Expression>, Box<Expression>),
    /// The condition, what holds if it is true, and what otherwise.
    Choice(Box<Expression>, Box<Expression>, Option<Box<Expression>>),
}

/// How something is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    Filter,
    Method,
    Function,
}

/// Parses a whole template.
pub(super) fn template(source: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces(source)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some((word, _)) => Err(not_understood(&word)),
    }
}

/// What a template is cut into.
enum Piece {
    Text(String),
    Print(String),
    Statement(String),
}

fn pieces(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = source;
    let mut trim = false;
    while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let (text, tag) = rest.split_at(at);
        let open = tag.get(..2).unwrap_or_default();
        let close = match open {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        let inside = tag.get(2..).unwrap_or_default();
        let end = inside.find(close).ok_or_else(|| not_understood(tag))?;
        let (inside, after) = inside.split_at(end);
        let text = if trim { text.trim_start() } else { text };
        let text = if inside.starts_with('-') { text.trim_end() } else { text };
        pieces.push(Piece::Text(text.to_owned()));
        trim = inside.ends_with('-') && inside.len() > 1;
        let inside = inside.trim_start_matches(['-', '+']).trim_end_matches('-').trim().to_owned();
        match open {
            "{{" => pieces.push(Piece::Print(inside)),
            "{%" => pieces.push(Piece::Statement(inside)),
            _ => {}
        }
        rest = after.get(2..).unwrap_or_default();
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// The parts up to a statement that ends them; that statement's word and the rest of it.
type Block = (Vec<Node>, Option<(String, String)>);

fn block(pieces: &mut IntoIter<Piece>, depth: u32) -> Result<Block, TemplateError> {
    if depth > DEEPEST {
        return Err(TemplateError::TooDeep);
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Text(text) if text.is_empty() => {}
            Piece::Text(text) => nodes.push(Node::Text(text)),
            Piece::Print(source) => nodes.push(Node::Print(expression(&source)?)),
            Piece::Statement(source) => {
                let (word, rest) = source.split_once(char::is_whitespace).unwrap_or((&source, ""));
                match word {
                    "if" => nodes.push(condition(rest, pieces, depth)?),
                    "elif" | "else" | "endif" => {
                        return Ok((nodes, Some((word.to_owned(), rest.to_owned()))));
                    }
                    _ => return Err(not_understood(&source)),
                }
            }
        }
    }
    Ok((nodes, None))
}

fn condition(first: &str, pieces: &mut IntoIter<Piece>, depth: u32) -> Result<Node, TemplateError> {
    let mut branches = Vec::new();
    let mut asked = expression(first)?;
    loop {
        let (nodes, end) = block(pieces, depth + 1)?;
        match end {
            Some((word, rest)) if word == "elif" => {
                branches.push((asked, nodes));
                asked = expression(&rest)?;
            }
            Some((word, _)) if word == "endif" => {
                branches.push((asked, nodes));
                return Ok(Node::If(branches, Vec::new()));
            }
            Some(_) => {
                branches.push((asked, nodes));
                let (otherwise, end) = block(pieces, depth + 1)?;
                return match end {
                    Some((word, _)) if word == "endif" => Ok(Node::If(branches, otherwise)),
                    _ => Err(not_understood("else")),
                };
            }
            None => return Err(not_understood("if")),
        }
    }
}

fn expression(source: &str) -> Result<Expression, TemplateError> {
    let mut tokens = Tokens { tokens: tokens(source)?, at: 0, depth: 0 };
    let parsed = tokens.choice()?;
    match tokens.peek() {
        None => Ok(parsed),
        Some(token) => Err(not_understood(&format!("{token:?}"))),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Literal(Value),
    Sign(&'static str),
}

/// The longest first, so that `==` is not read as two `=`.
const SIGNS: [&str; 22] = [
    "==", "!=", "<=", ">=", "//", "(", ")", "[", "]", ".", ",", ":", "|", "~", "+", "-", "*", "/", "%", "<",
    ">", "=",
];

fn tokens(source: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_alphabetic() || first == '_' {
            let name = run(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            tokens.push(Token::Name(name.to_owned()));
            name.len()
        } else if first.is_ascii_digit() {
            let digits = run(rest, |c| c.is_ascii_digit() || c == '.');
            let number: Option<Number> = serde_json::from_str(digits).ok();
            tokens.push(Token::Literal(Value::Number(number.ok_or_else(|| not_understood(rest))?)));
            digits.len()
        } else if first == '\'' || first == '"' {
            let (text, length) = quoted(rest, first)?;
            tokens.push(Token::Literal(Value::String(text)));
            length
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| not_understood(rest))?;
            tokens.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest.get(length..).unwrap_or_default().trim_start();
        if tokens.len() > MOST_TOKENS {
            return Err(TemplateError::TooDeep);
        }
    }
    Ok(tokens)
}

fn run(text: &str, holds: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !holds(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// A text in quotes, and how many bytes it took with them.
fn quoted(source: &str, quote: char) -> Result<(String, usize), TemplateError> {
    let mut text = String::new();
    let mut characters = source.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == quote {
            return Ok((text, at + 1));
        }
        if c == '\\' {
            match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c)) => text.push(c),
                None => break,
            }
        } else {
            text.push(c);
        }
    }
    Err(not_understood(source))
}

/// The tokens of one expression. Each level of the grammar is one function, the loosest first.
struct Tokens {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

impl Tokens {
    fn choice(&mut self) -> Result<Expression, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError::TooDeep);
        }
        let mut value = self.any()?;
        if self.takes_word("if") {
            let asked = self.any()?;
            let otherwise = if self.takes_word("else") { Some(Box::new(self.choice()?)) } else { None };
            value = Expression::Choice(Box::new(asked), Box::new(value), otherwise);
        }
        self.depth -= 1;
        Ok(value)
    }

    fn any(&mut self) -> Result<Expression, TemplateError> {
        let mut left = self.all()?;
        while self.takes_word("or") {
            left = Expression::Binary("or", Box::new(left), Box::new(self.all()?));
        }
        Ok(left)
    }

    fn all(&mut self) -> Result<Expression, TemplateError> {
        let mut left = self.not()?;
        while self.takes_word("and") {
            left = Expression::Binary("and", Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, TemplateError> {
        let mut inverted = false;
        while self.takes_word("not") {
            inverted = !inverted;
        }
        let value = self.comparison()?;
        Ok(if inverted { Expression::Not(Box::new(value)) } else { value })
    }

    fn comparison(&mut self) -> Result<Expression, TemplateError> {
        let mut left = self.binary(0)?;
        loop {
            let inverted = self.peek_word(0, "not") && self.peek_word(1, "in");
            if inverted {
                self.at += 1;
            }
            let operator = if self.takes_word("in") {
                Some("in")
            } else {
                ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|sign| self.takes(sign))
            };
            let Some(operator) = operator else { return Ok(left) };
            left = Expression::Binary(operator, Box::new(left), Box::new(self.binary(0)?));
            if inverted {
                left = Expression::Not(Box::new(left));
            }
        }
    }

    /// What is computed, from the loosest binding to the tightest.
    fn binary(&mut self, level: usize) -> Result<Expression, TemplateError> {
        const LEVELS: [&[&str]; 3] = [&["~"], &["+", "-"], &["*", "//", "/", "%"]];
        let Some(operators) = LEVELS.get(level) else { return self.signed() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().copied().find(|sign| self.takes(sign)) {
            left = Expression::Binary(operator, Box::new(left), Box::new(self.binary(level + 1)?));
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Expression, TemplateError> {
        let mut negative = false;
        while self.takes("-") {
            negative = !negative;
        }
        let value = self.followed()?;
        Ok(if negative { Expression::Minus(Box::new(value)) } else { value })
    }

    /// A value, and the attributes, filters and tests that follow it.
    fn followed(&mut self) -> Result<Expression, TemplateError> {
        let mut value = self.primary()?;
        // The steps are bounded by the tokens; the nesting that they make is bounded here.
        for _ in 0..DEEPEST {
            value = if self.takes(".") {
                self.attribute(value)?
            } else if self.takes("[") {
                self.index(value)?
            } else if self.takes("|") {
                let name = self.name()?;
                self.call(Callee::Filter, name, Some(value))?
            } else if self.takes_word("is") {
                let inverted = self.takes_word("not");
                let test = Expression::Test(Box::new(value), self.name()?);
                if inverted { Expression::Not(Box::new(test)) } else { test }
            } else {
                return Ok(value);
            };
        }
        Err(TemplateError::TooDeep)
    }

    fn attribute(&mut self, of: Expression) -> Result<Expression, TemplateError> {
        let name = match self.next() {
            Some(Token::Name(name)) => name,
            Some(Token::Literal(Value::Number(number))) => number.to_string(),
            other => return Err(not_understood(&format!("{other:?}"))),
        };
        if self.peek() == Some(&Token::Sign("(")) {
            return self.call(Callee::Method, name, Some(of));
        }
        Ok(Expression::Attribute(Box::new(of), name))
    }

    fn index(&mut self, of: Expression) -> Result<Expression, TemplateError> {
        let start =
            if self.peek() == Some(&Token::Sign(":")) { None } else { Some(Box::new(self.choice()?)) };
        if !self.takes(":") {
            self.expect("]")?;
            let index = start.ok_or_else(|| not_understood("["))?;
            return Ok(Expression::Index(Box::new(of), index));
        }
        let end = if self.peek() == Some(&Token::Sign("]")) { None } else { Some(Box::new(self.choice()?)) };
        self.expect("]")?;
        Ok(Expression::Slice(Box::new(of), start, end))
    }

    fn primary(&mut self) -> Result<Expression, TemplateError> {
        match self.next() {
            Some(Token::Literal(value)) => Ok(Expression::Literal(value)),
            Some(Token::Sign("(")) => {
                let inside = self.choice()?;
                self.expect(")")?;
                Ok(inside)
            }
            Some(Token::Sign("[")) => Ok(Expression::List(self.list("]")?)),
            Some(Token::Name(name)) if self.peek() == Some(&Token::Sign("(")) => {
                self.call(Callee::Function, name, None)
            }
            Some(Token::Name(name)) => Ok(match name.as_str() {
                "true" | "True" => Expression::Literal(Value::Bool(true)),
                "false" | "False" => Expression::Literal(Value::Bool(false)),
                "none" | "None" => Expression::Literal(Value::Null),
                _ => Expression::Name(name),
            }),
            other => Err(not_understood(&format!("{other:?}"))),
        }
    }

    fn call(
        &mut self,
        callee: Callee,
        name: String,
        subject: Option<Expression>,
    ) -> Result<Expression, TemplateError> {
        let mut values: Vec<Expression> = subject.into_iter().collect();
        if self.takes("(") {
            values.extend(self.list(")")?);
        }
        if !is_known(callee, &name) {
            return Err(not_understood(&name));
        }
        Ok(Expression::Call(callee, name, values))
    }

    /// Values with commas between them. The names of named ones are passed over: none here needs them.
    fn list(&mut self, end: &'static str) -> Result<Vec<Expression>, TemplateError> {
        let mut values = Vec::new();
        while !self.takes(end) {
            let is_named = matches!(self.peek(), Some(Token::Name(_)))
                && self.tokens.get(self.at + 1) == Some(&Token::Sign("="));
            if is_named {
                self.at += 2;
            }
            values.push(self.choice()?);
            if !self.takes(",") && self.peek() != Some(&Token::Sign(end)) {
                return Err(not_understood(end));
            }
        }
        Ok(values)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn peek_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some(Token::Name(name)) if name == word)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn name(&mut self) -> Result<String, TemplateError> {
        match self.next() {
            Some(Token::Name(name)) => Ok(name),
            other => Err(not_understood(&format!("{other:?}"))),
        }
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_it = self.peek_word(0, word);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), TemplateError> {
        if self.takes(sign) { Ok(()) } else { Err(not_understood(sign)) }
    }
}

fn not_understood(at: &str) -> TemplateError {
    TemplateError::NotUnderstood(at.chars().take(40).collect())
}
