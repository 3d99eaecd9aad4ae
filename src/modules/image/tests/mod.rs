mod bodies;
mod hostile;
mod layers;
mod layouts;
