"""Nine models as users of FuxiCTR write them, from its layers and its BaseModel (its wheel has no zoo of them)."""

import torch
from fuxictr.pytorch.layers import (
    BilinearInteractionV2,
    CompressedInteractionNet,
    CrossNet,
    CrossNetV2,
    FactorizationMachine,
    FeatureEmbedding,
    InnerProductInteraction,
    LogisticRegression,
    MLP_Block,
    ScaledDotProductAttention,
    SqueezeExcitation,
)
from fuxictr.pytorch.models import BaseModel
from torch import nn

HIDDEN = [64, 32]


class Ranker(BaseModel):
    """What the nine have in common; `parts` makes a model's own layers and `logit` uses them."""

    def __init__(self, feature_map, embedding_dim, learning_rate, **kwargs):
        super().__init__(feature_map, model_id=type(self).__name__, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.fields, self.width = feature_map.num_fields, embedding_dim
        self.parts(feature_map, self.fields * embedding_dim)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        X = self.get_inputs(inputs)
        return {"y_pred": self.output_activation(self.logit(X, self.embedding_layer(X)))}

    def mlp(self, input_dim, output_dim=1, **kwargs):
        return MLP_Block(input_dim, HIDDEN, output_dim=output_dim, **kwargs)


class DeepFM(Ranker):
    def parts(self, feature_map, flat):
        self.fm, self.dnn = FactorizationMachine(feature_map), self.mlp(flat, dropout_rates=0.1)

    def logit(self, X, embedded):
        return self.fm(X, embedded) + self.dnn(embedded.flatten(1))


class WideDeep(Ranker):
    def parts(self, feature_map, flat):
        self.lr_layer, self.dnn = LogisticRegression(feature_map, use_bias=False), self.mlp(flat, batch_norm=True)

    def logit(self, X, embedded):
        return self.lr_layer(X) + self.dnn(embedded.flatten(1))


class DCN(Ranker):
    def parts(self, feature_map, flat):
        self.crossnet, self.dnn = CrossNet(flat, 2), self.mlp(flat, output_dim=None)
        self.fc = nn.Linear(flat + HIDDEN[-1], 1)

    def logit(self, X, embedded):
        flat = embedded.flatten(1)
        return self.fc(torch.cat([self.crossnet(flat), self.dnn(flat)], dim=-1))


class DCNv2(DCN):
    def parts(self, feature_map, flat):
        super().parts(feature_map, flat)
        self.crossnet = CrossNetV2(flat, 2)


class xDeepFM(Ranker):
    def parts(self, feature_map, flat):
        self.lr_layer = LogisticRegression(feature_map, use_bias=False)
        self.cin, self.dnn = CompressedInteractionNet(self.fields, [16, 16]), self.mlp(flat)

    def logit(self, X, embedded):
        return self.lr_layer(X) + self.cin(embedded) + self.dnn(embedded.flatten(1))


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_res = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.dot_attention = ScaledDotProductAttention()

    def forward(self, X):
        Q, K, V = (W(X).unflatten(-1, (self.heads, -1)).transpose(1, 2) for W in (self.W_q, self.W_k, self.W_v))
        attended, _ = self.dot_attention(Q, K, V, scale=Q.shape[-1] ** 0.5)
        return (attended.transpose(1, 2).flatten(2) + self.W_res(X)).relu()


class AutoInt(Ranker):
    def parts(self, feature_map, flat):
        self.lr_layer = LogisticRegression(feature_map, use_bias=False)
        self.self_attention = nn.Sequential(*(SelfAttention(self.width, heads=2) for _ in range(2)))
        self.fc, self.dnn = nn.Linear(flat, 1), self.mlp(flat)

    def logit(self, X, embedded):
        attended = self.self_attention(embedded).flatten(1)
        return self.fc(attended) + self.dnn(embedded.flatten(1)) + self.lr_layer(X)


class FiBiNET(Ranker):
    def parts(self, feature_map, flat):
        self.lr_layer = LogisticRegression(feature_map, use_bias=False)
        self.senet = SqueezeExcitation(self.fields)
        self.bilinear1, self.bilinear2 = (BilinearInteractionV2(self.fields, self.width, "field_all") for _ in range(2))
        self.dnn = self.mlp(self.fields * (self.fields - 1) * self.width)

    def logit(self, X, embedded):
        pairs = torch.cat([self.bilinear1(embedded), self.bilinear2(self.senet(embedded))], dim=1)
        return self.lr_layer(X) + self.dnn(pairs.flatten(1))


class PNN(Ranker):
    def parts(self, feature_map, flat):
        self.inner_product = InnerProductInteraction(self.fields, output="inner_product")
        self.dnn = self.mlp(self.fields * (self.fields - 1) // 2 + flat)

    def logit(self, X, embedded):
        return self.dnn(torch.cat([embedded.flatten(1), self.inner_product(embedded)], dim=1))


class NFM(Ranker):
    def parts(self, feature_map, flat):
        self.lr_layer = LogisticRegression(feature_map)
        self.bi_pooling = InnerProductInteraction(self.fields, output="bi_interaction")
        self.dnn = self.mlp(self.width)

    def logit(self, X, embedded):
        return self.lr_layer(X) + self.dnn(self.bi_pooling(embedded))


MODELS = {cls.__name__: cls for cls in (DeepFM, WideDeep, DCN, DCNv2, xDeepFM, AutoInt, FiBiNET, PNN, NFM)}
