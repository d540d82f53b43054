"""What runs many simulations: comparisons of predictors, policies and configurations, and back-tests."""
