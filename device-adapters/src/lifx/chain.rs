//! The tiles of a matrix, and the messages that hold its zones.
//!
//! Zones count from the first tile of the chain on, in each tile row by row from its top left, which is the order in
//! the messages: <https://lan.developer.lifx.com/docs/tile-control>. How a tile is turned, and where its user put it
//! beside the others, changes nothing of that. A cell of the grid that has no light, such as four of the first row
//! of a Candle, counts as well.

use std::fmt;
use std::ops::Range;

use super::wire::{Hsbk, Request, Tile};

/// The most tiles; one message tells of so many.
pub(crate) const MOST_TILES: usize = 16;
/// Zones in one message.
pub(crate) const ZONES_IN_MESSAGE: usize = 64;
/// The most messages that it may take to hold all zones. The largest matrix that there is, a chain of five tiles,
/// takes five.
const MOST_PARTS: usize = 16;

/// The tiles of a matrix, in their order; those behind the last have no zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Chain([Tile; MOST_TILES]);

/// The rows of a tile that one message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which tile of the chain.
    tile: u8,
    /// The first of the rows.
    row: u8,
    /// How many zones a row has.
    width: u8,
    /// Which zones of the whole matrix these are.
    pub(crate) zones: Range<usize>,
}

impl Chain {
    /// A chain of these tiles; none of tiles that no message, or too many messages, would hold.
    pub(crate) fn new(tiles: &[Tile]) -> Option<Self> {
        let mut chain = Self::default();
        for (slot, tile) in chain.0.iter_mut().zip(tiles) {
            *slot = *tile;
        }
        let fits = chain.0.iter().all(|tile| usize::from(tile.width) <= ZONES_IN_MESSAGE);
        (fits && chain.parts().nth(MOST_PARTS).is_none()).then_some(chain)
    }

    /// How many zones it has.
    pub(crate) fn zones(&self) -> usize {
        self.0.iter().map(Tile::zones).sum()
    }

    /// The part that is held by a message about that tile from that row on.
    pub(crate) fn part(&self, tile: u8, row: u8, width: u8) -> Option<Part> {
        self.parts().find(|part| (part.tile, part.row, part.width) == (tile, row, width))
    }

    /// The questions for the parts that are missing: one for neighbours that are missing the same rows.
    pub(crate) fn questions(&self, is_missing: impl Fn(&Range<usize>) -> bool) -> Vec<Request> {
        let mut questions: Vec<Request> = Vec::new();
        for Part { tile: next, row: from, width: wide, .. } in self.parts().filter(|p| is_missing(&p.zones)) {
            match questions.last_mut() {
                Some(Request::Get64 { tile, length, row, width })
                    if *tile + *length == next && (*row, *width) == (from, wide) =>
                {
                    *length += 1;
                }
                _ => questions.push(Request::Get64 { tile: next, length: 1, row: from, width: wide }),
            }
        }
        questions
    }

    /// The zones behind the first `painted` that share a tile with one of those. A tile is told as a whole, so what
    /// these show must be known.
    pub(crate) fn shared(&self, painted: usize) -> Range<usize> {
        let mut tiles = self.tiles().map(|(_, _, zones)| zones);
        let end = tiles.find(|zones| zones.start < painted && painted < zones.end).map(|zones| zones.end);
        painted..end.unwrap_or(painted)
    }

    /// The messages that show these colours, one for each zone of the first so many tiles, fading over so many
    /// milliseconds. A tile that one message does not hold is prepared where nobody sees it, and then shown at once.
    pub(crate) fn paint(&self, colors: &[Hsbk], fade: u32) -> Vec<Request> {
        let mut requests = Vec::new();
        for (tile, Tile { width, height }, zones) in self.tiles() {
            if zones.end > colors.len() {
                break;
            }
            let is_one = zones.len() <= ZONES_IN_MESSAGE;
            let (buffer, each) = if is_one { (0, fade) } else { (1, 0) };
            for part in self.parts().filter(|part| part.tile == tile) {
                let colors = colors.get(part.zones).unwrap_or_default().to_vec();
                requests.push(Request::Set64 { tile, buffer, row: part.row, width, colors, fade: each });
            }
            if !is_one {
                requests.push(Request::CopyFrameBuffer { tile, width, height, fade });
            }
        }
        requests
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        self.tiles().flat_map(|(tile, Tile { width, height }, zones)| {
            let wide = usize::from(width);
            let rows = ZONES_IN_MESSAGE.checked_div(wide).unwrap_or_default().max(1);
            (0..height).step_by(rows).map(move |row| {
                let first = zones.start + usize::from(row) * wide;
                Part { tile, row, width, zones: first..(first + rows * wide).min(zones.end) }
            })
        })
    }

    /// The tiles that have zones: which of the chain, its size, and which zones of the whole matrix it has.
    fn tiles(&self) -> impl Iterator<Item = (u8, Tile, Range<usize>)> {
        let mut next = 0;
        let numbered = (0u8..).zip(self.0).map(move |(index, tile)| {
            let zones = next..next + tile.zones();
            next = zones.end;
            (index, tile, zones)
        });
        numbered.filter(|(_, _, zones)| !zones.is_empty())
    }
}

/// For people: the sizes of the tiles, in columns and rows.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<Tile> = self.tiles().map(|(_, tile, _)| tile).collect();
        match sizes.as_slice() {
            [] => f.write_str("no zones"),
            [one] => write!(f, "{one} zones"),
            [first, rest @ ..] if rest.iter().all(|tile| tile == first) => {
                write!(f, "{} tiles of {first} zones", sizes.len())
            }
            _ => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                write!(f, "tiles of {} zones", sizes.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn chain(sizes: &[(u8, u8)]) -> Option<Chain> {
        let tiles: Vec<Tile> =
            sizes.iter().map(|(width, height)| Tile { width: *width, height: *height }).collect();
        Chain::new(&tiles)
    }

    fn colors(count: usize) -> Vec<Hsbk> {
        (0..count)
            .map(|n| Hsbk { hue: n.try_into().unwrap(), saturation: 0, brightness: 0, kelvin: 3_500 })
            .collect()
    }

    #[test]
    fn every_matrix_that_is_sold_fits() {
        for (sizes, zones, messages, words) in [
            (&[(8, 8); 5][..], 320, 5, "5 tiles of 8 x 8 zones"),
            (&[(5, 6)], 30, 1, "5 x 6 zones"),
            (&[(3, 1)], 3, 1, "3 x 1 zones"),
            (&[(4, 13)], 52, 1, "4 x 13 zones"),
            (&[(16, 8)], 128, 2, "16 x 8 zones"),
            (&[(8, 8), (5, 6)], 94, 2, "tiles of 8 x 8, 5 x 6 zones"),
        ] {
            let chain = chain(sizes).unwrap();
            assert_eq!((chain.zones(), chain.parts().count()), (zones, messages));
            assert_eq!(chain.to_string(), words);
        }
    }

    #[test]
    fn a_chain_that_cannot_be_is_none() {
        for sizes in [&[(255, 255)][..], &[(65, 1)], &[(1, 255); 5], &[(8, 9); 16], &[(64, 17)]] {
            assert_eq!(chain(sizes), None, "{sizes:?}");
        }
        for sizes in [&[][..], &[(0, 0)], &[(0, 255); 16], &[(255, 0)]] {
            assert_eq!(chain(sizes).map_or(0, |chain| chain.zones()), 0, "{sizes:?}");
        }
        assert_eq!(chain(&[(8, 8); 200]).unwrap().zones(), 1_024, "no more tiles than one message tells of");
    }

    #[test]
    fn neighbours_are_asked_together() {
        let get = |tile, length, row, width| Request::Get64 { tile, length, row, width };
        let tiles = chain(&[(8, 8); 5]).unwrap();
        assert_eq!(tiles.questions(|_| true), [get(0, 5, 0, 8)]);
        assert_eq!(tiles.questions(|zones| zones.start != 128), [get(0, 2, 0, 8), get(3, 2, 0, 8)]);
        assert_eq!(chain(&[(16, 8)]).unwrap().questions(|_| true), [get(0, 1, 0, 16), get(0, 1, 4, 16)]);
        let mixed = chain(&[(8, 8), (0, 0), (8, 8), (5, 6)]).unwrap();
        assert_eq!(mixed.questions(|_| true), [get(0, 1, 0, 8), get(2, 1, 0, 8), get(3, 1, 0, 5)]);
    }

    #[test]
    fn a_tile_larger_than_a_message_is_prepared_and_then_shown() {
        let ceiling = chain(&[(16, 8)]).unwrap();
        let all = colors(128);
        let set = |row, colors: &[Hsbk]| Request::Set64 {
            tile: 0,
            buffer: 1,
            row,
            width: 16,
            colors: colors.to_vec(),
            fade: 0,
        };
        let copy = Request::CopyFrameBuffer { tile: 0, width: 16, height: 8, fade: 900 };
        assert_eq!(ceiling.paint(&all, 900), [set(0, &all[..64]), set(4, &all[64..]), copy]);
    }

    #[test]
    fn what_shares_a_tile_with_the_last_zone_is_told_with_it() {
        let tiles = chain(&[(8, 8); 2]).unwrap();
        for (painted, shared) in
            [(1, 1..64), (63, 63..64), (64, 64..64), (65, 65..128), (128, 128..128), (0, 0..0)]
        {
            assert_eq!(tiles.shared(painted), shared);
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_a_chain_hold_each_zone_once(
            sizes in proptest::collection::vec((0..=66u8, 0..=40u8), 0..20)
        ) {
            let Some(chain) = chain(&sizes) else { return Ok(()) };
            let parts: Vec<Part> = chain.parts().collect();
            prop_assert!(parts.len() <= MOST_PARTS && chain.zones() <= MOST_PARTS * ZONES_IN_MESSAGE);
            let zones: Vec<usize> = parts.iter().flat_map(|part| part.zones.clone()).collect();
            prop_assert_eq!(zones, (0..chain.zones()).collect::<Vec<_>>());
            for part in &parts {
                prop_assert!((1..=ZONES_IN_MESSAGE).contains(&part.zones.len()));
                prop_assert_eq!(chain.part(part.tile, part.row, part.width), Some(part.clone()));
            }
        }

        #[test]
        fn painting_reaches_each_zone_of_the_tiles_once(
            sizes in proptest::collection::vec((1..=16u8, 1..=9u8), 1..6), painted in 0..400usize
        ) {
            let Some(chain) = chain(&sizes) else { return Ok(()) };
            let whole = chain.shared(painted.min(chain.zones())).end;
            let mut shown = Vec::new();
            for request in chain.paint(&colors(whole), 0) {
                if let Request::Set64 { colors, .. } = request {
                    shown.extend(colors);
                }
            }
            prop_assert_eq!(shown, colors(whole));
        }
    }
}
