"""From a scanner's series to BraTS cases, and from label maps back to the series (extra `clinical`)."""
