//! By all cores, where that pays.

use rayon::prelude::*;

/// Waking the threads of the pool, or making them, costs more than this many small files do: most
/// jobs have few inputs and outputs, and a pool that has just been idle spins for a while.
pub const WORTH_IT: usize = 48;

/// Applies a function to all items, in parallel if there are many, and keeps their order. The
/// first error, in no particular order, is the result.
pub fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    function: impl Fn(&T) -> Result<R, E> + Send + Sync,
) -> Result<Vec<R>, E> {
    if items.len() < WORTH_IT {
        items.iter().map(function).collect()
    } else {
        items.par_iter().map(function).collect()
    }
}

/// Applies a function to all items, in parallel if there are many, and keeps their order.
pub fn map<T: Sync, R: Send>(items: &[T], function: impl Fn(&T) -> R + Send + Sync) -> Vec<R> {
    if items.len() < WORTH_IT {
        items.iter().map(function).collect()
    } else {
        items.par_iter().map(function).collect()
    }
}

/// Applies a function to the numbers from 0 on, in parallel if there are many, and keeps their order.
pub fn map_numbers<R: Send>(count: usize, function: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    if count < WORTH_IT {
        (0..count).map(function).collect()
    } else {
        (0..count).into_par_iter().map(function).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_on_both_sides_of_the_limit() {
        for count in [0, 1, WORTH_IT - 1, WORTH_IT, 10 * WORTH_IT] {
            let items: Vec<_> = (0..count).collect();
            assert_eq!(
                map(&items, |item| item * 2),
                items.iter().map(|i| i * 2).collect::<Vec<_>>()
            );
            let twice: Vec<_> = items.iter().map(|i| i * 2).collect();
            assert_eq!(map_numbers(count, |i| i * 2), twice);
            assert_eq!(
                try_map(&items, |&item| Ok::<_, ()>(item)),
                Ok(items.clone())
            );
            if count > 0 {
                assert_eq!(
                    try_map(&items, |&item| if item == 0 { Err(7) } else { Ok(item) }),
                    Err(7)
                );
            }
        }
    }
}
