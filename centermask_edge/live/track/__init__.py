"""Who is who from frame to frame, and what zones and lines see of them."""
